//! Over MPI: real jobs whose card orders the fault.

use super::common::{BOTH, Ended, Mpi, card, under};
use super::{Draw, draws};
use std::path::Path;
use std::time::Duration;
use tempfile::tempdir;

/// Start of a job, its deadline of 2 s, and 2 s to end it: all that a draw may take.
const LIMIT: Duration = Duration::from_secs(9);

const KINDS: [&str; 9] =
    ["skip", "extra", "length", "short", "long", "corrupt", "kill", "stop", "abort"];

#[derive(Debug)]
struct Scene {
    mpi: Mpi,
    ranks: usize,
    culprit: usize,
    step: u64,
    kind: &'static str,
    /// When it happens: further fields of the fault.
    when: String,
    algorithm: &'static str,
}

impl Scene {
    fn new(number: u64) -> Scene {
        let mut draw = Draw(number ^ 0xfa17);
        let ranks = 2 + draw.below(3);
        // In turn, so that ten draws have every kind.
        let kind = KINDS[(number % KINDS.len() as u64) as usize];
        // The 2(P - 1) steps of the ring; headers go through shared memory on one host.
        let message = draw.below(2 * (ranks - 1));
        let when = match (kind, draw.below(3)) {
            ("skip" | "extra" | "length", _) => String::new(),
            ("short" | "long" | "corrupt", _) => format!(",\"message\":{message}"),
            (_, 0) => ",\"at\":\"reduce\"".to_owned(),
            (_, 1) => format!(",\"at\":\"reduce\",\"message\":{message}"),
            (_, _) => ",\"at\":\"optimizer\"".to_owned(),
        };
        let shared_will_do = !when.contains("message") && draw.below(2) == 0;
        Scene {
            mpi: BOTH[draw.below(2)],
            ranks,
            culprit: draw.below(ranks),
            step: 2 + draw.next() % 20,
            kind,
            when,
            algorithm: if shared_will_do { "auto" } else { "ring" },
        }
    }

    fn run(&self, out: &Path) -> Ended {
        let Scene { culprit, step, kind, when, .. } = self;
        under(self.mpi, self.ranks)
            .args(["train", &card("lenet-mnist.json"), "--out"])
            .args([out])
            .env("ANNULUS_ALLOW_FAULTS", "1")
            .set("data.train_limit=1000")
            .set("data.test_limit=500")
            .set("train.global_batch=64")
            .set("train.epochs=50")
            .set("schedule={}")
            .set("checkpoint.every_steps=7")
            .set("comm.deadline_s=2")
            .set("comm.checksum=true")
            .set(format!("comm.algorithm=\"{}\"", self.algorithm))
            .set(format!(
                "faults=[{{\"rank\":{culprit},\"step\":{step},\"kind\":\"{kind}\"{when}}}]"
            ))
            .run()
    }

    /// Whether the job said what was wrong with it.
    fn is_told(&self, ended: &Ended) -> bool {
        let said = ended.complaints().join("\n");
        let says = |text: &str| said.contains(text);
        let name = format!("rank {}", self.culprit);
        match self.kind {
            "skip" | "extra" | "length" => {
                says("not in the same collective") || says("skipped or repeated")
            }
            "short" | "long" => says(&name) && says("sent a message of"),
            "corrupt" => says(&format!("from {name} ")) && says("was damaged on its way"),
            "stop" => says(&format!("nothing from {name} ")),
            // The launcher may be first, and each has words of its own for a death.
            _ => {
                let launcher = match self.mpi {
                    Mpi::Open => format!("process {name} "),
                    // It shows the end of any rank, the killed one's or of one that it ended itself.
                    Mpi::Mpich => "BAD TERMINATION".to_owned(),
                };
                says(&format!("nothing from {name} ")) || ended.all_output().contains(&launcher)
            }
        }
    }
}

#[test]
fn faults_in_real_jobs_end_in_time_with_one_diagnosis_each() {
    let mut wrong = Vec::new();
    for number in draws(10) {
        let folder = tempdir().unwrap();
        let out = folder.path().join("run");
        let scene = Scene::new(number);
        let ended = scene.run(&out);
        if ended.code == 0 || ended.took > LIMIT || !scene.is_told(&ended) {
            let (took, code) = (ended.took, ended.code);
            wrong.push(format!(
                "draw {number}, {scene:?}: code {code} after {took:?}: {}",
                ended.all_output()
            ));
        }
    }
    assert!(wrong.is_empty(), "{} jobs:\n{}", wrong.len(), wrong.join("\n"));
}
