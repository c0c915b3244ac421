//! What the same bits need beside the same order of sums: reproducible mode checks it at the start.

use super::device::Choice;
use crate::collective::Group;
use crate::config::Card;
use crate::error::{Error, Result};
use crate::nn;
use crate::util::processor;

/// Makes sure, where the card wants the same bits at any number of ranks, that every rank computes
/// on the same kind of processor with as many threads as the card says.
///
/// # Errors
/// [`Error::Config`] on all ranks, with what differs.
pub fn check(card: &Card, device: Choice, group: &mut Group) -> Result<()> {
    let Some(mode) = card.reproducible else { return Ok(()) };
    if device != Choice::Cpu {
        let text = "reproducible mode is for --device cpu: a GPU adds up in an order that is not \
                    ours to choose";
        return Err(group.common_failure(Error::Config(text.to_owned())));
    }
    group.together(threads(mode.threads))?;
    group.require_equal("the processor (reproducible mode)", &processor::kind())
}

fn threads(wanted: usize) -> Result<()> {
    let (pool, product) = (rayon::current_num_threads(), nn::threads());
    if pool == wanted && product == wanted {
        return Ok(());
    }
    Err(Error::Config(format!(
        "reproducible.threads is {wanted}, but this rank computes with {pool}: another number can add \
         up in another order. Remove --threads, or set reproducible.threads={pool}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads::alone;

    #[test]
    fn a_gpu_and_another_number_of_threads_are_refused_with_advice() {
        let text = include_str!("../../configs/lenet-mnist.json");
        let mut card: Card = serde_json::from_str(text).unwrap();
        let mut group = Group::meet(Box::new(alone())).unwrap();
        assert!(check(&card, Choice::Cuda(None), &mut group).is_ok());
        let threads = rayon::current_num_threads() + 1;
        card.reproducible = Some(crate::config::Reproducible { leaves: 4, threads });
        let gpu = check(&card, Choice::Cuda(None), &mut group).unwrap_err();
        assert!(gpu.to_string().contains("--device cpu"), "{gpu}");
        let other = check(&card, Choice::Cpu, &mut group).unwrap_err();
        assert_eq!(other.exit_code(), 78);
        let wanted = format!("reproducible.threads is {threads}");
        assert!(other.to_string().contains(&wanted), "{other}");
    }
}
