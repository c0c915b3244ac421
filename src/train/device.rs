//! Where a rank computes.

use crate::error::{Error, Result};
use candle_core::Device;
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

impl Choice {
    /// Opens the device for the rank that is number `local_rank` on its host.
    ///
    /// # Errors
    /// [`Error::Config`] when this build or this machine has no such device.
    pub fn open(self, local_rank: usize) -> Result<Device> {
        let Choice::Cuda(number) = self else { return Ok(Device::Cpu) };
        if !candle_core::utils::cuda_is_available() {
            return Err(Error::Config(
                "--device cuda: this annulus was built without CUDA. Build it with `cargo build \
                 --release --features cuda` where the CUDA toolkit is installed, or use --device cpu"
                    .to_owned(),
            ));
        }
        let number = number.unwrap_or(local_rank);
        Device::new_cuda(number).map_err(|e| {
            Error::Config(format!(
                "--device cuda: cannot use GPU {number}: {e}. `nvidia-smi` lists the GPUs; one rank \
                 needs one GPU"
            ))
        })
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
        let error = Choice::Cuda(None).open(0).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains("--features cuda"));
    }
}
