//! Your own `candle-nn` model, trained data-parallel. The lines marked with `◄` are all that the
//! distribution adds.
//!
//!     cargo run --release --example custom_model                  (one rank)
//!     mpirun -n 2 target/release/examples/custom_model            (two ranks, the same result)
//!
//! The task is made up: tell whether a point lies inside a circle.

use annulus::Strategy;
use annulus::error::Result;
use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Linear, Module, Optimizer, SGD, VarBuilder, VarMap, linear, loss};

const SAMPLES: u64 = 1003;
const GLOBAL_BATCH: u64 = 96;
const EPOCHS: u64 = 60;

/// Two dense layers, as anyone would write them with Candle.
struct Net {
    hidden: Linear,
    output: Linear,
}

impl Net {
    fn new(vb: VarBuilder) -> candle_core::Result<Net> {
        Ok(Net { hidden: linear(2, 16, vb.pp("hidden"))?, output: linear(16, 2, vb.pp("output"))? })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.output.forward(&self.hidden.forward(x)?.tanh()?)
    }
}

/// Starts all parameters in ±1 / √inputs from a fixed sequence: Candle's own generator has no seed on the
/// CPU, and a run that begins elsewhere each time ends elsewhere each time.
fn start(vars: &VarMap) -> candle_core::Result<()> {
    let named = vars.data().lock().map_err(|e| candle_core::Error::Msg(e.to_string()))?.clone();
    let mut named: Vec<_> = named.into_iter().collect();
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut number = 0.0_f64;
    for (_, var) in named {
        let bound = 1.0 / f64::from(*var.dims().last().unwrap_or(&1) as u32).sqrt();
        let next = |_| {
            number += 1.0;
            (bound * (2.0 * (number * 0.618_033_988_7).fract() - 1.0)) as f32
        };
        let values: Vec<f32> = (0..var.elem_count()).map(next).collect();
        var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu)?)?;
    }
    Ok(())
}

/// Points and classes of some samples: a point is inside when x² + y² < 0.5.
fn batch(samples: &[u64]) -> candle_core::Result<(Tensor, Tensor)> {
    // A low-discrepancy sequence (multiples of the golden and the plastic number) fills the square.
    let point = |i: u64| {
        let at = |step: f64| (2.0 * (i as f64 * step).fract() - 1.0) as f32;
        [at(0.754_877_666_2), at(0.569_840_290_9)]
    };
    let points: Vec<[f32; 2]> = samples.iter().map(|&i| point(i)).collect();
    let inside = |[x, y]: &[f32; 2]| u32::from(x * x + y * y < 0.5);
    let classes: Vec<u32> = points.iter().map(inside).collect();
    let n = samples.len();
    let points = Tensor::from_vec(points.concat(), (n, 2), &Device::Cpu)?;
    Ok((points, Tensor::from_vec(classes, n, &Device::Cpu)?))
}

fn main() -> Result<()> {
    let vars = VarMap::new();
    let net = Net::new(VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu))?;
    start(&vars)?;
    let mut optimizer = SGD::new(vars.all_vars(), 1.0)?;
    let mut strategy = Strategy::connect()?; //                                                  ◄
    strategy.broadcast(&vars)?; //                                                               ◄

    for epoch in 0..EPOCHS {
        for local in strategy.batches(SAMPLES, GLOBAL_BATCH, 7, epoch) {
            //                                                                                   ◄
            let step = strategy.step(&vars, &local, |samples| {
                let (points, classes) = batch(samples)?;
                loss::cross_entropy(&net.forward(&points)?, &classes)
            })?;
            optimizer.step(&step.grads)?; //                                                     ◄
        }
    }

    // Accuracy as counts, each sample once, over all ranks.
    let mut counts = [0.0, 0.0];
    for local in strategy.batches(SAMPLES, GLOBAL_BATCH, 7, 0) {
        if local.samples.is_empty() {
            continue;
        }
        let (points, classes) = batch(&local.samples)?;
        let right = net.forward(&points)?.argmax(D::Minus1)?.eq(&classes)?;
        counts[0] += f64::from(right.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?);
        counts[1] += local.samples.len() as f64;
    }
    strategy.sum(&mut counts)?; //                                                               ◄
    if strategy.rank() == 0 {
        let accuracy = 100.0 * counts[0] / counts[1];
        println!("{} ranks: {}/{} right, {accuracy:.1} %", strategy.size(), counts[0], counts[1]);
    }
    strategy.finish() //                                                                         ◄
}
