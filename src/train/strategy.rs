//! Data-parallel training of a model that a user has written with `candle-nn`.
//!
//! Named after TensorFlow's `tf.distribute.Strategy`, with the semantics of its
//! `MirroredStrategy`: one replica per rank, equal parameters, summed gradients, equal updates.
//!
//! ```no_run
//! # fn main() -> annulus::error::Result<()> {
//! # let vars = candle_nn::VarMap::new();
//! # let mut optimizer = candle_nn::SGD::new(vars.all_vars(), 0.1)?;
//! # fn loss(_: &[u64]) -> candle_core::Result<candle_core::Tensor> { candle_core::Tensor::new(0f32, &candle_core::Device::Cpu) }
//! # use candle_nn::Optimizer;
//! let mut strategy = annulus::Strategy::connect()?;
//! strategy.broadcast(&vars)?;
//! for batch in strategy.batches(60_000, 128, 42, 0) {
//!     let step = strategy.step(&vars, &batch, |samples| loss(samples))?;
//!     optimizer.step(&step.grads)?;
//! }
//! strategy.finish()
//! # }
//! ```

use crate::collective::{Group, Op};
use crate::comm;
use crate::data::{Sampler, sampler};
use crate::error::{Error, Result};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;

/// This rank's part of a data-parallel job.
pub struct Strategy {
    group: Group,
    flat: Vec<f32>,
}

/// This rank's part of one global batch.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalBatch {
    /// Indices of this rank's samples; may be empty.
    pub samples: Vec<u64>,
    /// Number of samples of the global batch, over all ranks.
    pub global: u64,
}

/// What [`Strategy::step`] returns.
pub struct Step {
    /// Gradients of the mean loss over the global batch, for any Candle optimizer.
    pub grads: GradStore,
    /// Mean loss over the global batch, equal on all ranks.
    pub loss: f64,
}

impl Strategy {
    /// Joins the ranks that `mpirun` or `srun` started; a job of one rank without a launcher.
    ///
    /// # Errors
    /// When MPI does not start or a rank does not come.
    pub fn connect() -> Result<Strategy> {
        Ok(Strategy::over(Group::meet(comm::connect()?)?))
    }

    /// The strategy over a group that is there already.
    #[must_use]
    pub fn over(group: Group) -> Strategy {
        Strategy { group, flat: Vec::new() }
    }

    /// This rank, 0..size.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.group.rank()
    }

    /// Number of ranks.
    #[must_use]
    pub fn size(&self) -> usize {
        self.group.size()
    }

    /// Gives every rank the values that rank 0 has. Variables are matched by name, in name order;
    /// names, types and shapes must be equal on all ranks.
    ///
    /// # Errors
    /// When the ranks' variables differ, with both sides shown.
    pub fn broadcast(&mut self, vars: &VarMap) -> Result<()> {
        let vars = by_name(vars);
        let signature: String = vars
            .iter()
            .map(|(name, v)| format!("{name} {:?} {:?}\n", v.dtype(), v.dims()))
            .collect();
        self.group.require_equal("the model's variables", &signature)?;
        for (_, var) in &vars {
            let mut values = host_values(var)?;
            self.group.broadcast(&mut values, 0)?;
            set(var, &values)?;
        }
        Ok(())
    }

    /// This rank's part of each global batch of an epoch over `samples` samples. Together the ranks
    /// see every sample once, in an order that depends on seed and epoch alone. All ranks get the same
    /// number of batches.
    #[must_use]
    pub fn batches(&self, samples: u64, global: u64, seed: u64, epoch: u64) -> Vec<LocalBatch> {
        let sampler = Sampler::new(samples, global, seed);
        let order = sampler.order(epoch);
        (0..sampler.steps_per_epoch())
            .map(|step| {
                let positions = sampler.global_batch(step);
                let part = sampler::part(&positions, self.rank(), self.size());
                let samples = part.map(|position| order.at(position)).collect();
                LocalBatch { samples, global: positions.end - positions.start }
            })
            .collect()
    }

    /// Forward, backward and gradient sum for one batch.
    ///
    /// `loss` gets this rank's samples and returns their *mean* loss as a scalar, as Candle's loss
    /// functions do; it is not called where the rank has none. The result is exact for any sizes:
    /// the mean over the global batch, not the mean of the ranks' means.
    ///
    /// # Errors
    /// When `loss` or the backward pass fails, or another rank is late or dead.
    pub fn step(
        &mut self,
        vars: &VarMap,
        batch: &LocalBatch,
        loss: impl FnOnce(&[u64]) -> candle_core::Result<Tensor>,
    ) -> Result<Step> {
        let mut grads = None;
        let mut sum = 0.0;
        if !batch.samples.is_empty() {
            let mean = loss(&batch.samples)?;
            let share = batch.samples.len() as f64 / batch.global as f64;
            let scaled = (mean * share)?;
            sum = f64::from(scaled.to_dtype(DType::F32)?.to_scalar::<f32>()?);
            grads = Some(scaled.backward()?);
        }
        let mut grads = match grads {
            Some(grads) => grads,
            // The only way to an empty store: the gradient of a constant.
            None => Tensor::zeros((), DType::F32, &Device::Cpu)?.backward()?,
        };
        self.sum_gradients(&by_name(vars), &mut grads)?;
        let mut loss = [sum];
        self.group.all_reduce(&mut loss, Op::Sum)?;
        Ok(Step { grads, loss: loss[0] })
    }

    /// Sums numbers over all ranks, in place: counts and sums of metrics, to be divided afterwards.
    ///
    /// # Errors
    /// When another rank is late or dead.
    pub fn sum(&mut self, numbers: &mut [f64]) -> Result<()> {
        self.group.all_reduce(numbers, Op::Sum)
    }

    /// Leaves the job in good order. All ranks must call it.
    ///
    /// # Errors
    /// When a rank does not come.
    pub fn finish(mut self) -> Result<()> {
        self.group.barrier()?;
        self.group.finish();
        Ok(())
    }

    /// Packs the gradients in name order (zeros where there is none), sums them in one all-reduce, and
    /// puts them back.
    fn sum_gradients(&mut self, vars: &[(String, Var)], grads: &mut GradStore) -> Result<()> {
        self.flat.clear();
        for (_, var) in vars {
            match grads.get(var.as_tensor()) {
                Some(grad) => self.flat.extend(host_values(grad)?),
                None => self.flat.resize(self.flat.len() + var.elem_count(), 0.0),
            }
        }
        self.group.all_reduce(&mut self.flat, Op::Sum)?;
        let mut rest = self.flat.as_slice();
        for (_, var) in vars {
            let (values, tail) = rest.split_at(var.elem_count());
            rest = tail;
            let grad = Tensor::from_slice(values, var.shape(), var.device())?;
            grads.insert(var.as_tensor(), grad.to_dtype(var.dtype())?);
        }
        Ok(())
    }
}

/// The variables in name order: `VarMap::all_vars` has another order in every process.
fn by_name(vars: &VarMap) -> Vec<(String, Var)> {
    let map = vars.data().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut vars: Vec<(String, Var)> = map.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
    vars.sort_by(|a, b| a.0.cmp(&b.0));
    vars
}

fn host_values(tensor: &Tensor) -> Result<Vec<f32>> {
    match tensor.dtype() {
        DType::F32 | DType::F16 | DType::BF16 => {
            Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
        }
        other => Err(Error::Config(format!("variables of type {other:?} cannot be trained here"))),
    }
}

fn set(var: &Var, values: &[f32]) -> Result<()> {
    let tensor = Tensor::from_slice(values, var.shape(), var.device())?;
    Ok(var.set(&tensor.to_dtype(var.dtype())?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;

    /// What each of three ranks gets from `broadcast`, where rank 2 has the variable `name` of `shape`
    /// beside the bias that all have.
    fn broadcast(name: &'static str, shape: &'static [usize]) -> Vec<Result<()>> {
        let of = |peer: threads::ThreadPeer, mine: (&str, &[usize])| {
            let mut strategy = Strategy::over(Group::meet(Box::new(peer))?);
            let vars = VarMap::new();
            for (name, shape) in [("bias", [3].as_slice()), mine] {
                let var = Var::zeros(shape, DType::F32, &Device::Cpu)?;
                vars.data().lock().unwrap().insert(name.to_owned(), var);
            }
            strategy.broadcast(&vars)
        };
        std::thread::scope(|scope| {
            let ranks: Vec<_> = threads::world(3)
                .into_iter()
                .enumerate()
                .map(|(rank, peer)| {
                    let mine =
                        if rank == 2 { (name, shape) } else { ("weight", [3, 4].as_slice()) };
                    scope.spawn(move || of(peer, mine))
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn ranks_whose_variables_differ_in_name_or_shape_are_refused_and_both_are_shown() {
        assert!(broadcast("weight", &[3, 4]).iter().all(Result::is_ok));
        for (name, shape) in [("kernel", [3, 4].as_slice()), ("weight", &[4, 3])] {
            for refused in broadcast(name, shape) {
                let error = refused.unwrap_err();
                assert_eq!(error.exit_code(), 78);
                let text = error.to_string();
                let theirs = format!("{name} F32 {shape:?}");
                assert!(text.contains("weight F32 [3, 4]") && text.contains(&theirs), "{text}");
            }
        }
    }
}
