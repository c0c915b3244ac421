//! Named parameters, always in name order.
//!
//! Candle's own `VarMap` is a `HashMap`: its order differs in every process, and ranks that pack
//! gradients in that order add the wrong tensors to each other. A [`ParamSet`] is sorted by name once,
//! when the model is complete, and everything else (buckets, optimizer, hashes, files) follows it.

use super::grads::{BucketBytes, Course, GradBuckets, Write};
use super::host::store;
use crate::config;
use crate::error::{Error, Result};
use crate::util::aligned::FlatBuf;
use crate::util::rng::{Purpose, Rng, mix};
use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Shape, Storage, Tensor, Var};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// Uniform in ±√(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010).
    Glorot {
        /// Inputs of one unit.
        fan_in: usize,
        /// Units that one input reaches.
        fan_out: usize,
    },
    /// Uniform in ±√(6 / fan_in) (He et al., 2015).
    He {
        /// Inputs of one unit.
        fan_in: usize,
    },
    /// Uniform in ± this value.
    Uniform(f32),
}

impl Init {
    /// What a card's `model.init` means for weights with these numbers of inputs and outputs.
    #[must_use]
    pub fn weights(kind: config::Init, fan_in: usize, fan_out: usize) -> Init {
        match kind {
            config::Init::Glorot => Init::Glorot { fan_in, fan_out },
            config::Init::He => Init::He { fan_in },
        }
    }
}

/// Where a parameter's gradient goes, known once the set is complete.
type Place = Arc<RwLock<Option<(Arc<GradBuckets>, usize)>>>;

/// One trainable tensor. Clones share it.
#[derive(Clone)]
pub struct Param {
    name: String,
    var: Var,
    place: Place,
}

impl Param {
    /// Its dotted name, as PyTorch would call it: `conv1.weight`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its layer, for messages: `conv1` of `conv1.weight`.
    #[must_use]
    pub fn layer(&self) -> &str {
        self.name.rsplit_once('.').map_or(&self.name, |(layer, _)| layer)
    }

    /// The variable that operations take as argument.
    #[must_use]
    pub fn var(&self) -> &Var {
        &self.var
    }

    /// Its values as a tensor for operations.
    #[must_use]
    pub fn tensor(&self) -> &Tensor {
        self.var.as_tensor()
    }

    /// Lets a backward pass put the gradient where it will be reduced. See [`GradBuckets::write`].
    ///
    /// # Errors
    /// When the parameter belongs to no complete [`ParamSet`].
    pub fn write_grad(&self, write: impl FnOnce(&mut [f32], Write)) -> candle_core::Result<()> {
        self.in_place(|grads, i| grads.write(i, write))
    }

    /// The same where each value of the gradient is formed elsewhere before it is set or added
    /// ([`GradBuckets::write_whole`]).
    ///
    /// # Errors
    /// As [`Param::write_grad`].
    pub fn write_whole_grad(
        &self,
        write: impl FnOnce(&mut [f32], Write),
    ) -> candle_core::Result<()> {
        self.in_place(|grads, i| grads.write_whole(i, write))
    }

    /// Enters a gradient that is complete. Fails as [`Param::write_grad`].
    pub fn put_grad(&self, grad: &[f32]) -> candle_core::Result<()> {
        self.write_whole_grad(|slot, how| store(slot, grad, how))
    }

    fn in_place(&self, f: impl FnOnce(&GradBuckets, usize)) -> candle_core::Result<()> {
        let place = self.place.read().unwrap_or_else(PoisonError::into_inner);
        let (grads, i) = place.as_ref().ok_or_else(|| {
            let text = format!("{}: backward before the parameter set is complete", self.name);
            candle_core::Error::Msg(text)
        })?;
        f(grads, *i);
        Ok(())
    }

    /// Lets `f` change the values in place (CPU), or on the host and back (other devices).
    ///
    /// # Errors
    /// When the tensor is not `f32` or a copy to or from the device fails.
    pub fn update(&self, f: impl FnOnce(&mut [f32]) + Send) -> Result<()> {
        if self.var.device().is_cpu() {
            self.var.inplace_op1(&OnSlice(Mutex::new(Some(f))))?;
        } else {
            let mut values = self.var.flatten_all()?.to_vec1::<f32>()?;
            f(&mut values);
            self.var.set(&Tensor::from_vec(values, self.var.shape(), self.var.device())?)?;
        }
        Ok(())
    }

    /// Shows `f` the values where they lie (CPU), or a copy of them (other devices).
    ///
    /// # Errors
    /// When the tensor is not contiguous `f32`, or the copy from the device fails.
    pub fn read<R>(&self, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
        let (storage, layout) = self.var.storage_and_layout();
        if let (Storage::Cpu(host), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
            return Ok(f(&host.as_slice::<f32>()?[start..end]));
        }
        drop(storage);
        Ok(f(&self.to_vec()?))
    }

    /// A copy of the values on the host.
    ///
    /// # Errors
    /// When the copy from the device fails.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        Ok(self.var.flatten_all()?.to_vec1::<f32>()?)
    }
}

/// Runs a closure on the values of a contiguous `f32` CPU tensor.
struct OnSlice<F>(Mutex<Option<F>>);

impl<F: FnOnce(&mut [f32]) + Send> InplaceOp1 for OnSlice<F> {
    fn name(&self) -> &'static str {
        "update-in-place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets())
        else {
            candle_core::bail!("parameters must be contiguous f32 tensors");
        };
        let f = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(f) = f {
            f(&mut values[start..end]);
        }
        Ok(())
    }
}

/// Collects the parameters of a model while it is built.
#[derive(Clone)]
pub struct ParamBuilder {
    seed: u64,
    device: Device,
    prefix: String,
    params: Rc<RefCell<Vec<Param>>>,
}

impl ParamBuilder {
    /// A builder whose parameters start as functions of `seed` and their names alone.
    #[must_use]
    pub fn new(seed: u64, device: &Device) -> ParamBuilder {
        ParamBuilder { seed, device: device.clone(), prefix: String::new(), params: Rc::default() }
    }

    /// The same builder one name deeper: `pp("conv1")` makes `conv1.weight` of `weight`.
    #[must_use]
    pub fn pp(&self, name: &str) -> ParamBuilder {
        ParamBuilder { prefix: self.path(name), ..self.clone() }
    }

    /// Makes a parameter.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn param(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Param> {
        let (name, shape) = (self.path(name), shape.into());
        let values = initial_values(self.seed, &name, shape.elem_count(), init);
        let var = Var::from_vec(values, shape, &self.device)?;
        let param = Param { name, var, place: Place::default() };
        self.params.borrow_mut().push(param.clone());
        Ok(param)
    }

    /// The device that parameters are made on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Sorts the parameters by name and gives each a place in the gradient buckets.
    ///
    /// # Errors
    /// When two parameters have one name, or memory for the buckets is missing.
    pub fn finish(self, first_bucket_bytes: usize, bucket_bytes: usize) -> Result<ParamSet> {
        let mut params = self.params.take();
        params.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = params.windows(2).find(|p| p[0].name == p[1].name) {
            return Err(Error::Internal(format!("two parameters are called {}", pair[0].name)));
        }
        let bytes = BucketBytes { first: first_bucket_bytes, others: bucket_bytes };
        let grads = Arc::new(GradBuckets::new(&lengths(&params), bytes)?);
        let mut set = ParamSet { params, grads: grads.clone() };
        set.place(grads);
        Ok(set)
    }

    fn path(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}

fn lengths(params: &[Param]) -> Vec<usize> {
    params.iter().map(|p| p.var.elem_count()).collect()
}

/// Values of a new parameter: each is a function of (seed, name, position).
fn initial_values(seed: u64, name: &str, len: usize, init: Init) -> Vec<f32> {
    let bound = match init {
        Init::Zeros => return vec![0.0; len],
        Init::Glorot { fan_in, fan_out } => (6.0 / (fan_in + fan_out) as f64).sqrt(),
        Init::He { fan_in } => (6.0 / fan_in as f64).sqrt(),
        Init::Uniform(bound) => f64::from(bound),
    };
    let layer = name.bytes().fold(0, |h, byte| mix(h ^ u64::from(byte)));
    let mut rng = Rng::new(seed, Purpose::Init, 0, layer, 0);
    (0..len).map(|_| rng.symmetric(bound as f32)).collect()
}

/// All parameters of a model in name order, and the buckets of their gradients.
#[derive(Clone)]
pub struct ParamSet {
    params: Vec<Param>,
    grads: Arc<GradBuckets>,
}

impl ParamSet {
    /// The parameters in name order.
    pub fn iter(&self) -> std::slice::Iter<'_, Param> {
        self.params.iter()
    }

    /// The gradient buckets, shared with the parameters.
    #[must_use]
    pub fn grads(&self) -> &Arc<GradBuckets> {
        &self.grads
    }

    /// What is assumed of backward passes before one was watched: gradients come in the reverse of
    /// name order, and nobody knows when they are final.
    #[must_use]
    pub fn name_course(&self) -> Course {
        Course { order: (0..self.params.len()).rev().collect(), writes: Vec::new() }
    }

    /// Lays the gradients out anew, in the order in which backward passes finish them and in memory
    /// that `allocate` gives. What the buckets held is lost.
    ///
    /// # Errors
    /// As `allocate`.
    pub fn lay_out(
        &mut self,
        course: &Course,
        bytes: BucketBytes,
        allocate: &mut dyn FnMut(usize) -> Result<FlatBuf>,
    ) -> Result<()> {
        let grads = GradBuckets::laid_out(&lengths(&self.params), course, bytes, allocate)?;
        self.place(Arc::new(grads));
        Ok(())
    }

    fn place(&mut self, grads: Arc<GradBuckets>) {
        for (i, param) in self.params.iter().enumerate() {
            let mut place = param.place.write().unwrap_or_else(PoisonError::into_inner);
            *place = Some((grads.clone(), i));
        }
        self.grads = grads;
    }

    /// Number of trainable values.
    #[must_use]
    pub fn count(&self) -> usize {
        self.params.iter().map(|p| p.var.elem_count()).sum()
    }

    /// Names, types and shapes in order: equal on all ranks or the job must not start.
    #[must_use]
    pub fn signature(&self) -> String {
        let line = |p: &Param| format!("{} {:?} {:?}\n", p.name, p.var.dtype(), p.var.dims());
        self.params.iter().map(line).collect()
    }

    /// BLAKE3 of all values in name order (little-endian `f32`), in hex.
    ///
    /// # Errors
    /// When the copy from the device fails.
    pub fn hash(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        for param in &self.params {
            hasher.update(bytemuck::cast_slice(&param.to_vec()?));
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

impl<'a> IntoIterator for &'a ParamSet {
    type Item = &'a Param;
    type IntoIter = std::slice::Iter<'a, Param>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(names: &[&str]) -> ParamSet {
        let builder = ParamBuilder::new(1, &Device::Cpu);
        for name in names {
            builder.pp("net").param(name, (4, 3), Init::He { fan_in: 3 }).unwrap();
        }
        builder.finish(1 << 20, 1 << 20).unwrap()
    }

    #[test]
    fn parameters_come_in_name_order_and_start_the_same_whatever_the_order_of_building() {
        let (a, b) = (build(&["a", "b", "c"]), build(&["c", "a", "b"]));
        assert_eq!(a.iter().map(Param::name).collect::<Vec<_>>(), ["net.a", "net.b", "net.c"]);
        assert_eq!(a.signature(), b.signature());
        assert_eq!(a.hash().unwrap(), b.hash().unwrap());
    }

    #[test]
    fn gradients_go_to_the_new_buckets_after_a_new_layout() {
        let mut set = build(&["a", "b"]);
        let old = set.grads().clone();
        let course = Course { order: vec![0, 1], writes: vec![1, 1] };
        let bytes = BucketBytes { first: 16, others: 16 };
        set.lay_out(&course, bytes, &mut FlatBuf::zeroed).unwrap();
        set.iter().next().unwrap().write_grad(|slot, _| slot.fill(3.0)).unwrap();
        assert_eq!(set.grads().with_bucket(0, |bucket| bucket[..12].to_vec()), [3.0; 12]);
        assert_eq!(old.missing(), [0, 1]);
    }

    #[test]
    fn two_parameters_with_one_name_are_refused() {
        let builder = ParamBuilder::new(1, &Device::Cpu);
        builder.param("w", 2, Init::Zeros).unwrap();
        builder.param("w", 2, Init::Zeros).unwrap();
        assert!(builder.finish(1, 1).err().unwrap().to_string().contains("called w"));
    }

    #[test]
    fn initial_weights_fill_the_stated_interval() {
        let values = initial_values(3, "w", 10_000, Init::Glorot { fan_in: 10, fan_out: 14 });
        let bound = 0.5;
        assert!(values.iter().all(|v| v.abs() <= bound));
        let (low, high) = values.iter().fold((0f32, 0f32), |(l, h), &v| (l.min(v), h.max(v)));
        assert!(low < -0.49 && high > 0.49);
    }

    #[test]
    fn update_changes_the_values_that_operations_see() {
        let set = build(&["a"]);
        let param = set.iter().next().unwrap();
        param.update(|values| values.fill(2.0)).unwrap();
        assert_eq!(param.tensor().sum_all().unwrap().to_scalar::<f32>().unwrap(), 24.0);
    }
}
