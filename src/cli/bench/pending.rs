//! STUB until `collective` has them: the algorithms by name, the core-to-core probe, shared buffers.
//! Remove this file when `collective::Algorithm` and `Group::all_reduce_by` are merged.

use crate::collective::{Element, Group, Op};
use crate::error::Result;
use crate::util::aligned::FlatBuf;
use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Auto,
    Shared,
    Ring,
    Doubling,
    Mpi,
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Algorithm::Auto => "auto",
            Algorithm::Shared => "shared",
            Algorithm::Ring => "ring",
            Algorithm::Doubling => "doubling",
            Algorithm::Mpi => "mpi",
        })
    }
}

impl FromStr for Algorithm {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Algorithm, String> {
        use Algorithm::{Auto, Doubling, Mpi, Ring, Shared};
        let found = [Auto, Shared, Ring, Doubling, Mpi].into_iter().find(|a| a.to_string() == text);
        found.ok_or_else(|| format!("`{text}` is no algorithm"))
    }
}

pub trait Pending {
    fn all_reduce_by<T: Element>(&mut self, a: Algorithm, data: &mut [T], op: Op) -> Result<bool>;
    fn shared_buffer(&mut self, len: usize) -> Result<FlatBuf>;
    fn core_to_core_ns(&mut self) -> Result<Option<f64>>;
}

impl Pending for Group {
    fn all_reduce_by<T: Element>(&mut self, a: Algorithm, data: &mut [T], op: Op) -> Result<bool> {
        let native = match a {
            Algorithm::Auto | Algorithm::Ring => false,
            Algorithm::Mpi if crate::comm::launcher::from_env().is_some() => true,
            _ => return Ok(false),
        };
        self.configure(crate::comm::DEFAULT_DEADLINE, crate::comm::DEFAULT_SEGMENT, native);
        self.all_reduce(data, op)?;
        self.configure(crate::comm::DEFAULT_DEADLINE, crate::comm::DEFAULT_SEGMENT, false);
        Ok(true)
    }

    fn shared_buffer(&mut self, len: usize) -> Result<FlatBuf> {
        FlatBuf::zeroed(len)
    }

    fn core_to_core_ns(&mut self) -> Result<Option<f64>> {
        Ok(None)
    }
}
