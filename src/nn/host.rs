//! The values of CPU tensors as plain slices, without copies.

use candle_core::{CpuStorage, Layout, Result, Storage, StorageRef, Tensor, bail};

/// The values of an `f32` CPU storage inside an op's forward pass.
///
/// # Errors
/// When the tensor is not contiguous or not `f32`: layers prepare their arguments, so a bug here.
pub(super) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("expected a contiguous f32 tensor, got layout {layout:?}"),
    }
}

/// A contiguous tensor whose storage is held for reading.
pub(super) struct Host<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Host<'a> {
    /// Holds the storage of `tensor`, which must be contiguous (call `.contiguous()` first).
    pub(super) fn of(tensor: &'a Tensor) -> Host<'a> {
        let (storage, layout) = tensor.storage_and_layout();
        Host { storage, layout }
    }

    /// Its values in row-major order.
    ///
    /// # Errors
    /// When it is not a contiguous `f32` tensor on the CPU.
    pub(super) fn values(&self) -> Result<&[f32]> {
        match &*self.storage {
            Storage::Cpu(storage) => values(storage, self.layout),
            _ => bail!("expected a tensor on the CPU"),
        }
    }
}

/// A sum that the compiler turns into vector additions: 16 running sums, joined at the end.
pub(super) fn sum(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<16>();
    let mut lanes = [0.0f32; 16];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// Enters `from` into a gradient slot.
pub(super) fn store(slot: &mut [f32], from: &[f32], how: super::Write) {
    match how {
        super::Write::Set => slot.copy_from_slice(from),
        super::Write::Add => slot.iter_mut().zip(from).for_each(|(s, f)| *s += f),
    }
}
