use annulus::collective::{Algorithm, Group, Op, Tuning};
use std::time::Instant;
fn main() {
    annulus::util::malloc::keep_freed_memory();
    let mut g = Group::meet(annulus::comm::connect().unwrap()).unwrap();
    g.configure(Tuning::default()).unwrap();
    let max: usize = 64 << 20;
    let mut buf = g.shared_buffer(max).unwrap();
    let c = g.core_to_core_ns().unwrap();
    if g.rank() == 0 {
        println!("c2c {c:?} shared {:?}", g.shared_memory());
    }
    let mut private = vec![0f32; 1 << 20];
    for bytes in [
        8usize,
        64,
        256,
        1024,
        4096,
        8192,
        16384,
        32768,
        65536,
        138488,
        262144,
        1 << 20,
        4 << 20,
        16 << 20,
        64 << 20,
        256 << 20,
    ] {
        let n = bytes / 4;
        let algos = [
            Algorithm::Auto,
            Algorithm::Shared,
            Algorithm::Ring,
            Algorithm::Doubling,
            Algorithm::Mpi,
        ];
        let mut times = vec![vec![]; 5];
        let rounds = ((400usize << 20) / bytes).clamp(5, 60);
        let batch = (200_000 / bytes).clamp(1, 500);
        for _ in 0..rounds {
            for (a, algo) in algos.iter().enumerate() {
                // Shared = on private memory (staged) up to 4 MiB
                g.barrier().unwrap();
                let t = Instant::now();
                for _ in 0..batch {
                    if *algo == Algorithm::Shared {
                        if bytes > 4 << 20 {
                            continue;
                        }
                        g.all_reduce_by(Algorithm::Auto, &mut private[..n], Op::Sum).unwrap();
                    } else {
                        g.all_reduce_by(*algo, &mut buf[..n], Op::Sum).unwrap();
                    }
                }
                let mut d = [t.elapsed().as_secs_f64() / batch as f64];
                g.all_reduce(&mut d, Op::Max).unwrap();
                times[a].push(d[0] * 1e6);
            }
        }
        if g.rank() == 0 {
            print!("{bytes:>10}");
            for t in &mut times {
                t.sort_by(f64::total_cmp);
                print!(" {:>10.2}", t[t.len() / 2]);
            }
            println!();
        }
    }
    let c = g.core_to_core_ns().unwrap();
    if g.rank() == 0 {
        println!("c2c {c:?}");
    }
    g.finish();
}
