//! A table of vectors looked up by number, as `torch.nn.functional.embedding`.

use super::grads::Write;
use super::hook::tracked;
use super::host::{Host, values};
use super::params::Param;
use crate::error::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

/// Rows of `weight` (count, width), one per id. The same parameter may serve elsewhere, too (tied
/// output head): gradients add.
#[derive(Clone)]
pub struct Embedding {
    weight: Param,
}

impl Embedding {
    /// A layer over the table `weight` (count, width).
    ///
    /// # Errors
    /// [`Error::Internal`] when `weight` is not a matrix.
    pub fn new(weight: Param) -> Result<Embedding> {
        if weight.tensor().rank() == 2 {
            Ok(Embedding { weight })
        } else {
            let dims = weight.tensor().dims();
            Err(Error::Internal(format!("{}: expected a matrix, got {dims:?}", weight.name())))
        }
    }

    /// The vectors of `ids`: (ids, width).
    ///
    /// # Errors
    /// [`Error::Data`] when an id is not below the number of rows.
    pub fn forward(&self, ids: &[u32]) -> Result<Tensor> {
        let count = self.weight.tensor().dims()[0];
        if let Some(i) = ids.iter().position(|&id| id as usize >= count) {
            return Err(Error::Data(format!(
                "{}: id {} at place {i} is out of range: the table has {count} rows, 0 to {}",
                self.weight.layer(),
                ids[i],
                count.saturating_sub(1)
            )));
        }
        if !self.weight.tensor().device().is_cpu() {
            return Ok(self.composed(ids)?);
        }
        let op = EmbeddingOp { layer: self.clone(), ids: ids.to_vec() };
        Ok(self.weight.tensor().apply_op1(op)?)
    }

    /// The same of Candle's operations.
    fn composed(&self, ids: &[u32]) -> candle_core::Result<Tensor> {
        let table = self.weight.tensor();
        if ids.is_empty() {
            return Tensor::zeros((0, table.dims()[1]), table.dtype(), table.device());
        }
        tracked(&self.weight)?.index_select(&Tensor::from_slice(ids, ids.len(), table.device())?, 0)
    }
}

struct EmbeddingOp {
    layer: Embedding,
    ids: Vec<u32>,
}

impl CustomOp1 for EmbeddingOp {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(
        &self,
        table: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let width = layout.shape().dims2()?.1;
        let table = values(table, layout)?;
        let mut out = Vec::with_capacity(self.ids.len() * width);
        for &id in &self.ids {
            out.extend_from_slice(&table[id as usize * width..][..width]);
        }
        Ok((CpuStorage::F32(out), (self.ids.len(), width).into()))
    }

    fn bwd(
        &self,
        table: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let width = table.dims2()?.1;
        let grad = grad.contiguous()?;
        let grad = Host::of(&grad);
        let grad = grad.values()?;
        self.layer.weight.write_grad(|slot, how| {
            if how == Write::Set {
                slot.fill(0.0);
            }
            for (&id, grad) in self.ids.iter().zip(grad.chunks_exact(width)) {
                let row = &mut slot[id as usize * width..][..width];
                row.iter_mut().zip(grad).for_each(|(s, g)| *s += g);
            }
        })?;
        // Allowed for variables only, which the table is.
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{assert_agree, check_layer, gradients, params_of, random_tensor};
    use crate::nn::{Activation, Init, Linear, ParamBuilder, ParamSet};

    const IDS: [u32; 5] = [3, 0, 3, 6, 1];

    fn layer() -> (ParamSet, Param) {
        params_of(|b: &ParamBuilder| b.pp("te").param("weight", (7, 4), Init::Zeros))
    }

    #[test]
    fn gradients_equal_finite_differences_and_both_forms_agree() {
        let (set, weight) = layer();
        let table = Embedding::new(weight).unwrap();
        let own = |x: &Tensor| Ok((table.forward(&IDS)? * x)?);
        let composed = |x: &Tensor| Ok((table.composed(&IDS)? * x)?);
        check_layer(&set, &[5, 4], 1, own);
        check_layer(&set, &[5, 4], 1, composed);
        let x = random_tensor(&[5, 4], 2);
        assert_agree(gradients(&set, &x, own), gradients(&set, &x, composed));
    }

    #[test]
    fn a_table_that_is_also_the_output_head_receives_the_sum_of_both_gradients() {
        let (set, weight) = layer();
        let table = Embedding::new(weight.clone()).unwrap();
        let head = Linear::without_bias(weight, Activation::None).unwrap();
        check_layer(&set, &[5, 4], 1, |x| head.forward(&(table.forward(&IDS)? * x)?));
    }

    #[test]
    fn no_ids_give_no_rows_and_zero_gradients() {
        let (set, weight) = layer();
        let table = Embedding::new(weight).unwrap();
        let (own, y) = gradients(&set, &random_tensor(&[0, 4], 1), |_| table.forward(&[]));
        assert!(y.is_empty() && own[1].iter().all(|&g| g == 0.0));
        assert_eq!(table.composed(&[]).unwrap().dims(), [0, 4]);
    }

    #[test]
    fn an_id_out_of_range_is_a_data_error_that_names_it() {
        let (_, weight) = layer();
        let error = Embedding::new(weight).unwrap().forward(&[1, 7]).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains("te: id 7 at place 1 is out of range"), "{error}");
    }
}
