//! Where a rank computes, and what is said when a GPU fails.

use super::gpus;
use crate::error::{Error, Result};
use candle_core::Device;
use std::fmt;
use std::str::FromStr;

/// What `--device` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU: the given one, or the one whose number is this rank's place on its host.
    Cuda(Option<usize>),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Choice, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Choice::Cpu),
            None if text == "cuda" => Ok(Choice::Cuda(None)),
            Some(("cuda", n)) => match n.parse() {
                Ok(n) => Ok(Choice::Cuda(Some(n))),
                Err(_) => Err(format!("`{n}` is no GPU number")),
            },
            _ => Err("expected cpu, cuda, or cuda:N".to_owned()),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Choice::Cpu => f.write_str("cpu"),
            Choice::Cuda(None) => f.write_str("cuda"),
            Choice::Cuda(Some(number)) => write!(f, "cuda:{number}"),
        }
    }
}

impl Choice {
    /// Opens the device for the rank that is number `local_rank` of the `local_ranks` on its host.
    ///
    /// # Errors
    /// [`Error::Config`] when this build or this machine has no such device.
    pub fn open(self, local_rank: usize, local_ranks: usize) -> Result<Device> {
        let Choice::Cuda(wanted) = self else { return Ok(Device::Cpu) };
        if !candle_core::utils::cuda_is_available() {
            return Err(Error::Config(
                "--device cuda: this annulus was built without CUDA. Build it with `cargo build \
                 --release --features cuda` where the CUDA toolkit is installed, or use --device cpu"
                    .to_owned(),
            ));
        }
        let gpus = gpus::list().map_err(|why| {
            Error::Config(format!(
                "--device cuda: no GPU of this host can be used: {why}. `nvidia-smi` must list one; \
                 else use --device cpu"
            ))
        })?;
        let number = wanted.unwrap_or(local_rank);
        if number >= gpus.len() {
            return Err(missing(number, wanted.is_some(), local_ranks, &gpus));
        }
        Device::new_cuda(number).map_err(|e| {
            let gpu = gpus::describe(number);
            Error::Config(format!(
                "--device cuda: {gpu} cannot be opened: {}. {}",
                error_of(&e.to_string()),
                advice(&e.to_string())
            ))
        })
    }
}

/// A GPU was asked for that this host does not have.
fn missing(number: usize, by_number: bool, local_ranks: usize, gpus: &[String]) -> Error {
    let there = format!("this host has {}: {}", gpus.len(), gpus.join(", "));
    Error::Config(if by_number {
        format!("--device cuda:{number}: there is no GPU {number}; {there}")
    } else {
        format!(
            "--device cuda: each rank takes a GPU of its own, and there is no GPU {number} for the \
             last of the {local_ranks} ranks here; {there}. Start at most {} here, or let the ranks \
             share one: --device cuda:0",
            gpus.len()
        )
    })
}

/// An error of an operation on `device`. If it is the GPU's, it says which GPU, how much of its memory
/// is free, what was going on (`doing`), and what can be done about it.
#[must_use]
pub fn explain(error: Error, device: &Device, doing: impl FnOnce() -> String) -> Error {
    let text = error.to_string();
    match gpus::number(device) {
        Some(number) if text.contains("CUDA_ERROR") || text.contains("CUBLAS_STATUS") => {
            let (gpu, what) = (gpus::describe(number), error_of(&text));
            Error::Internal(format!("{gpu}: {what} {}. {}", doing(), advice(&text)))
        }
        _ => error,
    }
}

/// What the driver's words mean, and the words.
fn error_of(text: &str) -> String {
    let what = if is_full(text) { "out of memory" } else { "the GPU failed" };
    format!("{what} ({})", text.lines().next().unwrap_or(text))
}

fn is_full(text: &str) -> bool {
    ["OUT_OF_MEMORY", "ALLOC_FAILED"].iter().any(|word| text.contains(word))
}

fn advice(text: &str) -> &'static str {
    if is_full(text) {
        "`nvidia-smi` shows what else lies on it; less is needed with a smaller train.global_batch or \
         train.eval_batch, more train.accumulate, or more GPUs"
    } else {
        "`nvidia-smi -q` and the kernel's log (Xid) tell more; the same command goes on from the last \
         checkpoint, on another GPU or --device cpu as well"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_in_pytorch() {
        assert_eq!("cpu".parse(), Ok(Choice::Cpu));
        assert_eq!("cuda".parse(), Ok(Choice::Cuda(None)));
        assert_eq!("cuda:3".parse(), Ok(Choice::Cuda(Some(3))));
        for wrong in ["gpu", "cuda:", "cuda:x", "cpu:0", ""] {
            assert!(wrong.parse::<Choice>().is_err(), "{wrong}");
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn asking_for_cuda_without_it_says_how_to_get_it() {
        let error = Choice::Cuda(None).open(0, 1).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains("--features cuda"));
    }

    #[test]
    fn a_gpu_that_is_not_there_is_told_with_those_that_are() {
        let gpus = ["GPU 0 (A, 1 GB of 2 GB free)".to_owned()];
        let text = missing(7, true, 1, &gpus).to_string();
        assert!(text.starts_with("--device cuda:7: there is no GPU 7; this host has 1: GPU 0 (A"));
        let text = missing(1, false, 2, &gpus).to_string();
        assert!(text.contains("last of the 2 ranks") && text.contains("--device cuda:0"), "{text}");
    }

    #[test]
    fn a_full_gpu_and_a_broken_one_get_other_advice() {
        let full = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")\n   0: a backtrace";
        assert!(error_of(full).starts_with("out of memory (DriverError(CUDA_ERROR_OUT_OF_MEMORY"));
        assert!(!error_of(full).contains("backtrace"));
        assert!(advice(full).contains("train.global_batch"));
        let lost = "DriverError(CUDA_ERROR_ECC_UNCORRECTABLE, \"uncorrectable ECC error\")";
        assert!(error_of(lost).starts_with("the GPU failed"));
        assert!(advice(lost).contains("Xid"));
    }

    #[test]
    fn an_error_on_the_processor_stays_as_it_is() {
        let error = Error::Internal("CUDA_ERROR_OUT_OF_MEMORY".to_owned());
        let same = explain(error, &Device::Cpu, || unreachable!("nothing was done on a GPU"));
        assert_eq!(same.to_string(), "CUDA_ERROR_OUT_OF_MEMORY");
    }
}
