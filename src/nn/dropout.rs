//! Inverted dropout (Srivastava et al., 2014), as `torch.nn.functional.dropout`, whose mask depends on
//! (seed, epoch, layer, sample) alone: not on the batch a sample is in, nor on the rank.

use super::host::{Host, values};
use crate::error::{Error, Result};
use crate::util::rng::{Purpose, Rng};
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

/// A dropout layer. It has no parameters; call it while training only.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    share: f32,
    layer: u64,
}

impl Dropout {
    /// A layer that drops `share` of the values. `layer` is its number in the model: each dropout
    /// layer needs another, or their masks are the same.
    ///
    /// # Errors
    /// When `share` is not in 0 ≤ share < 1.
    pub fn new(share: f32, layer: u64) -> Result<Dropout> {
        if (0.0..1.0).contains(&share) {
            Ok(Dropout { share, layer })
        } else {
            Err(Error::Config(format!("dropout is {share}; it must be at least 0 and below 1")))
        }
    }

    /// `x` (batch, …), `f32`, with a `share` of each row's values set to 0 and the rest divided by
    /// 1 − share. Row i is sample `samples[i]`; its element j is kept if the j-th draw says so.
    ///
    /// # Errors
    /// When the number of rows is not that of `samples`.
    pub fn forward(&self, x: &Tensor, seed: u64, epoch: u64, samples: &[u64]) -> Result<Tensor> {
        let count = samples.len();
        if x.dims().first() != Some(&count) {
            return Err(Error::Internal(format!(
                "dropout: expected ({count}, …) for {count} samples, got {:?}",
                x.dims()
            )));
        }
        self.apply(x, || self.mask(seed, epoch, samples, x.elem_count() / count))
    }

    /// The same for sequences `x` (time, batch, width), whose column i is sample `samples[i]`; its step t has
    /// the draws t · width to (t + 1) · width.
    ///
    /// # Errors
    /// When the number of columns is not that of `samples`.
    pub fn forward_steps(
        &self,
        x: &Tensor,
        seed: u64,
        epoch: u64,
        samples: &[u64],
    ) -> Result<Tensor> {
        let &[time, batch, width] = x.dims() else {
            return Err(Error::Internal(format!("dropout: no sequences, {:?}", x.dims())));
        };
        if batch != samples.len() {
            return Err(Error::Internal(format!(
                "dropout: expected (time, {}, width) for as many samples, got {:?}",
                samples.len(),
                x.dims()
            )));
        }
        self.apply(x, || {
            let of_samples = self.mask(seed, epoch, samples, time * width);
            let mut mask = Vec::with_capacity(of_samples.len());
            for place in 0..time * batch {
                let (t, sample) = (place / batch, place % batch);
                mask.extend_from_slice(&of_samples[(sample * time + t) * width..][..width]);
            }
            mask
        })
    }

    fn apply(&self, x: &Tensor, mask: impl FnOnce() -> Vec<f32>) -> Result<Tensor> {
        if self.share == 0.0 || x.elem_count() == 0 {
            return Ok(x.clone());
        }
        if x.device().is_cpu() {
            return Ok(x.contiguous()?.apply_op1(Masked { mask: mask() })?);
        }
        Ok(composed(x, mask())?)
    }

    fn mask(&self, seed: u64, epoch: u64, samples: &[u64], len: usize) -> Vec<f32> {
        let scale = 1.0 / (1.0 - self.share);
        let mut mask = Vec::with_capacity(samples.len() * len);
        for &sample in samples {
            let mut rng = Rng::new(seed, Purpose::Dropout, epoch, self.layer, sample);
            let keep = |_| if rng.uniform() >= self.share { scale } else { 0.0 };
            mask.extend((0..len).map(keep));
        }
        mask
    }
}

/// The same of Candle's operations.
fn composed(x: &Tensor, mask: Vec<f32>) -> candle_core::Result<Tensor> {
    x.mul(&Tensor::from_vec(mask, x.shape(), x.device())?)
}

struct Masked {
    mask: Vec<f32>,
}

impl Masked {
    fn times(&self, x: &[f32]) -> Vec<f32> {
        x.iter().zip(&self.mask).map(|(x, m)| x * m).collect()
    }
}

impl CustomOp1 for Masked {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.times(values(storage, layout)?)), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let g = g.contiguous()?;
        let dx = self.times(Host::of(&g).values()?);
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{check_layer, gradients, no_params, random_tensor};
    use candle_core::{DType, Device};

    fn ones(rows: usize, cols: usize) -> Tensor {
        Tensor::ones((rows, cols), DType::F32, &Device::Cpu).unwrap()
    }

    fn rows(samples: &[u64]) -> Vec<Vec<f32>> {
        let dropout = Dropout::new(0.4, 3).unwrap();
        dropout.forward(&ones(samples.len(), 50), 1, 2, samples).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn the_gradient_equals_finite_differences_and_both_forms_agree() {
        let dropout = Dropout::new(0.3, 0).unwrap();
        let samples = [4, 9, 2];
        let own = |x: &Tensor| dropout.forward(x, 1, 2, &samples);
        check_layer(&no_params(), &[3, 2, 5], 1, own);
        let x = random_tensor(&[3, 2, 5], 2);
        let other = |x: &Tensor| Ok(composed(x, dropout.mask(1, 2, &samples, 10))?);
        assert_eq!(gradients(&no_params(), &x, own), gradients(&no_params(), &x, other));
    }

    #[test]
    fn a_samples_mask_does_not_depend_on_the_batch_it_is_in() {
        let together = rows(&[7, 8, 9, 1 << 40]);
        assert_eq!(together[1..3], rows(&[8, 9]));
        assert_eq!(together[3..], rows(&[1 << 40]));
        assert_ne!(together[0], together[1]);
    }

    #[test]
    fn a_sequence_has_the_mask_that_it_has_as_one_row() {
        let dropout = Dropout::new(0.4, 1).unwrap();
        let samples = [3, 8];
        let steps =
            dropout.forward_steps(&ones(20, 6).reshape((10, 2, 6)).unwrap(), 1, 2, &samples);
        let by_sample = steps.unwrap().transpose(0, 1).unwrap().reshape((2, 60)).unwrap();
        let rows = dropout.forward(&ones(2, 60), 1, 2, &samples).unwrap();
        assert_eq!(by_sample.to_vec2::<f32>().unwrap(), rows.to_vec2::<f32>().unwrap());
        let wrong = dropout.forward_steps(&ones(2, 6), 1, 2, &samples).unwrap_err().to_string();
        assert!(wrong.contains("no sequences"), "{wrong}");
    }

    #[test]
    fn epochs_layers_and_seeds_have_masks_of_their_own() {
        let mask =
            |layer, seed, epoch| Dropout::new(0.5, layer).unwrap().mask(seed, epoch, &[1], 64);
        let base = mask(0, 0, 0);
        assert!([mask(1, 0, 0), mask(0, 1, 0), mask(0, 0, 1)].iter().all(|other| *other != base));
    }

    #[test]
    fn the_stated_share_is_dropped_and_the_mean_is_kept() {
        let mask = Dropout::new(0.25, 0).unwrap().mask(1, 1, &[5], 40_000);
        let dropped = mask.iter().filter(|&&m| m == 0.0).count();
        assert!((9_600..10_400).contains(&dropped), "{dropped}");
        assert!(mask.iter().all(|&m| m == 0.0 || m == 1.0 / 0.75));
    }

    #[test]
    fn nothing_is_dropped_at_zero_and_shares_outside_the_interval_are_refused() {
        let x = random_tensor(&[2, 3], 1);
        let y = Dropout::new(0.0, 0).unwrap().forward(&x, 0, 0, &[0, 1]).unwrap();
        assert_eq!(x.to_vec2::<f32>().unwrap(), y.to_vec2::<f32>().unwrap());
        for share in [-0.1, 1.0, f32::NAN] {
            assert_eq!(Dropout::new(share, 0).unwrap_err().exit_code(), 78);
        }
        assert!(Dropout::new(0.5, 0).unwrap().forward(&x, 0, 0, &[0]).is_err());
        let empty = random_tensor(&[0, 3], 1);
        assert_eq!(
            Dropout::new(0.5, 0).unwrap().forward(&empty, 0, 0, &[]).unwrap().dims(),
            [0, 3]
        );
    }
}
