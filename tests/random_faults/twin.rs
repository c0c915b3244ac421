//! Over the twin: ranks are threads, so that a draw takes a second and the fault can be exact.

use super::{Draw, draws};
use annulus::collective::{Algorithm, Group, Op, Tuning};
use annulus::comm::{Peer as _, threads};
use annulus::error::Result;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Long enough for two busy cores: a rank that is not let run for so long is called lost, and rightly.
const DEADLINE: Duration = Duration::from_millis(500);
/// Worlds at a time: their ranks mostly sleep.
const AT_A_TIME: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Skips,
    AddsOne,
    Length,
    Dies(Moment),
    Freezes(Moment),
}

/// When, in its collective.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    Before,
    /// Before this message of it, or after it where it has fewer.
    Inside(u64),
    After,
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Sum(usize),
    Max(usize),
    Broadcast(usize),
    Gather,
    Barrier,
}

#[derive(Debug)]
struct Scene {
    ranks: usize,
    culprit: usize,
    algorithm: Algorithm,
    program: Vec<Call>,
    at: usize,
    wrong: Wrong,
    checksum: bool,
}

impl Scene {
    fn new(number: u64) -> Scene {
        let mut draw = Draw(number);
        let ranks = 2 + draw.below(4);
        let moment = match draw.below(3) {
            0 => Moment::Before,
            1 => Moment::Inside(draw.below(2 * ranks) as u64),
            _ => Moment::After,
        };
        // Neighbours differ, as in a program that is more than one loop over one call.
        let call = |i: usize, draw: &mut Draw| match (i % 2, draw.below(3)) {
            (0, 0) => Call::Sum(1 + draw.below(30_000)),
            (0, 1) => Call::Max(1 + draw.below(300)),
            (0, _) => Call::Broadcast(1 + draw.below(3000)),
            (_, 0) => Call::Gather,
            _ => Call::Barrier,
        };
        Scene {
            ranks,
            culprit: draw.below(ranks),
            algorithm: draw.of(&[Algorithm::Auto, Algorithm::Ring, Algorithm::Doubling]),
            program: (0..12).map(|i| call(i, &mut draw)).collect(),
            at: 2 * draw.below(5),
            wrong: draw.of(&[
                Wrong::Skips,
                Wrong::AddsOne,
                Wrong::Length,
                Wrong::Dies(moment),
                Wrong::Freezes(moment),
            ]),
            checksum: draw.of(&[false, true]),
        }
    }
}

fn call(group: &mut Group, call: Call, longer: usize) -> Result<()> {
    match call {
        Call::Sum(len) => group.all_reduce(&mut vec![1.0_f32; len + longer], Op::Sum),
        Call::Max(len) => group.all_reduce(&mut vec![1_u64; len + longer], Op::Max),
        Call::Broadcast(len) => group.broadcast(&mut vec![1_u8; len + longer], 0),
        Call::Gather => group.all_gather(b"something").map(|_| ()),
        Call::Barrier => group.barrier(),
    }
}

/// What the culprit does at a moment that it does not survive, or not soon.
fn fail(wrong: Wrong, all_ended: &AtomicBool) {
    if matches!(wrong, Wrong::Dies(_)) {
        resume_unwind(Box::new("dead"));
    }
    while !all_ended.load(SeqCst) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn play(group: &mut Group, scene: &Scene, all_ended: &Arc<AtomicBool>) -> Result<()> {
    let guilty = group.rank() == scene.culprit;
    for (i, what) in scene.program.iter().enumerate() {
        if !(guilty && i == scene.at) {
            call(group, *what, 0)?;
            continue;
        }
        match scene.wrong {
            Wrong::Skips => {}
            Wrong::AddsOne => group.barrier().and_then(|()| call(group, *what, 0))?,
            Wrong::Length => call(group, *what, 1)?,
            Wrong::Dies(moment) | Wrong::Freezes(moment) => {
                if moment == Moment::Before {
                    fail(scene.wrong, all_ended);
                }
                if let Moment::Inside(at) = moment {
                    let (wrong, all_ended) = (scene.wrong, Arc::clone(all_ended));
                    group.tamper(Box::new(move |message| {
                        if message == at {
                            fail(wrong, &all_ended);
                        }
                        None
                    }));
                }
                call(group, *what, 0)?;
                fail(scene.wrong, all_ended);
            }
        }
    }
    Ok(())
}

/// How far the ranks of a scene are.
struct Stage {
    met: AtomicUsize,
    honest_left: AtomicUsize,
    all_ended: Arc<AtomicBool>,
}

/// Joins the ranks of `scene`, and returns when all have met: a rank that is called while it is still
/// meeting would give up there, and nothing is promised before.
fn join(peer: threads::ThreadPeer, scene: &Scene, met: &AtomicUsize) -> Group {
    let mut group = Group::meet(Box::new(peer)).unwrap();
    let tuning = Tuning {
        deadline: DEADLINE,
        segment: 4096,
        algorithm: scene.algorithm,
        checksum: scene.checksum,
        ..Tuning::default()
    };
    group.configure(tuning).unwrap();
    met.fetch_add(1, SeqCst);
    let start = Instant::now();
    while met.load(SeqCst) < scene.ranks {
        assert!(start.elapsed() < Duration::from_secs(60), "the ranks did not meet");
        std::thread::sleep(Duration::from_millis(1));
    }
    group
}

/// The part of one rank: what it says in the end, or nothing if it is dead.
fn act(peer: threads::ThreadPeer, scene: &Scene, stage: &Stage) -> Option<String> {
    let guilty = peer.rank() == scene.culprit;
    let mut group = None;
    let played = catch_unwind(AssertUnwindSafe(|| {
        let group = group.insert(join(peer, scene, &stage.met));
        play(group, scene, &stage.all_ended).err().map(|error| error.to_string())
    }));
    let said = played.unwrap_or_else(|_| {
        group = None;
        None
    });
    // In any case, so that no rank waits for ever for the end of one that failed in an unexpected way.
    if !guilty && stage.honest_left.fetch_sub(1, SeqCst) == 1 {
        stage.all_ended.store(true, SeqCst);
    }
    // As a process that has failed: silent, but there.
    while group.is_some() && !stage.all_ended.load(SeqCst) {
        std::thread::sleep(Duration::from_millis(5));
    }
    said
}

/// What each rank but a dead one says, by rank, and how long the slowest took from the fault on.
fn perform(scene: &Scene) -> (Vec<Option<String>>, Duration) {
    let stage = Stage {
        met: AtomicUsize::new(0),
        honest_left: AtomicUsize::new(scene.ranks - 1),
        all_ended: Arc::new(AtomicBool::new(false)),
    };
    let start = Instant::now();
    let said = std::thread::scope(|scope| {
        let ranks: Vec<_> = threads::world(scene.ranks)
            .into_iter()
            .map(|peer| scope.spawn(|| act(peer, scene, &stage)))
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    (said, start.elapsed())
}

/// What is wrong with what the ranks of `scene` said; `None` where it is as it should be.
fn complaint(scene: &Scene, said: &[Option<String>], took: Duration) -> Option<String> {
    let culprit = format!("nothing from rank {}", scene.culprit);
    let honest = said.iter().enumerate().filter(|(rank, _)| *rank != scene.culprit);
    let mut honest = honest.map(|(_, text)| text.as_deref().unwrap_or_default());
    let told = match scene.wrong {
        Wrong::Dies(_) | Wrong::Freezes(_) => honest.all(|text| text.contains(&culprit)),
        _ => {
            let apart = |text: &str| {
                text.contains("not in the same collective") || text.contains("skipped or repeated")
            };
            honest.all(|text| !text.is_empty()) && said.iter().flatten().any(|text| apart(text))
        }
    };
    let in_time = took < DEADLINE + Duration::from_secs(2);
    (!told || !in_time).then(|| format!("{scene:?} took {took:?}: {said:#?}"))
}

#[test]
fn two_hundred_faults_in_one_process_end_in_time_with_one_diagnosis_each() {
    let draws = draws(200);
    let (next, wrong) = (Mutex::new(draws.clone()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(number) = { next.lock().unwrap().next() } {
                    let scene = Scene::new(number);
                    let (said, took) = perform(&scene);
                    let found = complaint(&scene, &said, took);
                    wrong
                        .lock()
                        .unwrap()
                        .extend(found.map(|text| format!("draw {number}: {text}")));
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {draws:?}:\n{}", wrong.len(), wrong.join("\n"));
}
