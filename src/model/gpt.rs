//! A language model in the form of GPT-2 (Radford et al., 2019): learned positions, pre-norm blocks
//! without biases in their dense layers, exact GELU, output head tied to the token table.

use super::{Model, Pass, line};
use crate::config;
use crate::error::{Error, Result};
use crate::nn::{Activation, Block, Embedding, Init, LayerNorm, Linear, Param, ParamBuilder};
use crate::util::rng::mix;
use candle_core::Tensor;

/// PyTorch's default of `nn.LayerNorm`.
const EPS: f32 = 1e-5;

/// Standard deviation of new weights.
const SPREAD: f64 = 0.02;

/// The sizes of a [`Gpt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GptShape {
    /// Number of tokens.
    pub vocab: usize,
    /// Largest number of positions.
    pub context: usize,
    /// Values per position.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads per block; must divide the width.
    pub heads: usize,
}

/// The model. Parameters: `te.weight` (tokens, also the head), `pe.weight` (positions), and for each
/// block `bl.0.ln1.weight`, `.ln1.bias`, `.qkv.weight`, `.o.weight`, `.ln2.weight`, `.ln2.bias`,
/// `.u.weight`, `.v.weight`, and `ln.weight`, `ln.bias`.
pub struct Gpt {
    tokens: Embedding,
    positions: Embedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
    shape: GptShape,
}

impl Gpt {
    /// The model with normally distributed matrices (standard deviation 0.02).
    ///
    /// # Errors
    /// [`Error::Config`] when a size is 0 or the heads do not divide the width; [`Error::Internal`]
    /// when memory is missing.
    pub fn new(shape: &GptShape, params: &ParamBuilder) -> Result<Gpt> {
        let GptShape { vocab, context, width, layers, heads } = *shape;
        if [vocab, context, width, layers, heads].contains(&0) || !width.is_multiple_of(heads) {
            return Err(Error::Config(format!(
                "a GPT needs sizes of at least 1 and a width that is a multiple of its heads; got \
                 vocab {vocab}, context {context}, width {width}, layers {layers}, heads {heads}"
            )));
        }
        let te = matrix(&params.pp("te"), vocab, width)?;
        let pe = matrix(&params.pp("pe"), context, width)?;
        let blocks = (0..layers).map(|i| block(&params.pp(&format!("bl.{i}")), width, heads));
        Ok(Gpt {
            blocks: blocks.collect::<Result<_>>()?,
            norm: LayerNorm::new(&params.pp("ln"), width, EPS)?,
            head: Linear::without_bias(te.clone(), Activation::None)?,
            tokens: Embedding::new(te)?,
            positions: Embedding::new(pe)?,
            shape: *shape,
        })
    }

    /// The model that a card names, for samples of shape `input`, (context).
    ///
    /// # Errors
    /// As [`Gpt::new`]; [`Error::Config`] for samples of another shape.
    pub fn build(
        card: &config::Model,
        input: &[usize],
        vocab: usize,
        params: &ParamBuilder,
    ) -> Result<Gpt> {
        let &[context] = input else {
            return Err(Error::Config(format!(
                "model.kind: `gpt` takes text; the samples have shape {input:?}"
            )));
        };
        // A checked card has the sizes.
        let [width, layers, heads] =
            [card.width, card.layers, card.heads].map(Option::unwrap_or_default);
        Gpt::new(&GptShape { vocab, context, width, layers, heads }, params)
    }

    /// Logits (batch · time, vocab) of `tokens`: `batch` sequences of equal length, one after the
    /// other. Row i scores what may follow token i.
    ///
    /// # Errors
    /// [`Error::Data`] when a token is not below the vocabulary, the sequences are longer than the
    /// context, or `tokens` does not divide into `batch` sequences.
    pub fn forward(&self, tokens: &[u32], batch: usize) -> Result<Tensor> {
        let time = tokens.len().checked_div(batch).unwrap_or(0);
        if time * batch != tokens.len() || time > self.shape.context {
            return Err(Error::Data(format!(
                "{} tokens as {batch} sequences: expected sequences of equal length, of at most {} \
                 tokens each (the model's context)",
                tokens.len(),
                self.shape.context
            )));
        }
        let places: Vec<u32> = (0..tokens.len()).map(|i| (i % time) as u32).collect();
        let x = (self.tokens.forward(tokens)? + self.positions.forward(&places)?)?;
        let mut x = x.reshape((batch, time, self.shape.width))?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        self.head.forward(&self.norm.forward(&x.flatten_to(1)?)?)
    }
}

impl Model for Gpt {
    fn forward(&self, x: &Tensor, _: &Pass) -> Result<Tensor> {
        let batch = x.dims2()?.0;
        let ids = x.flatten_all()?.to_vec1::<f32>()?;
        let tokens: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
        self.forward(&tokens, batch)
    }

    fn describe(&self) -> Vec<String> {
        let GptShape { vocab, context, width, layers, heads } = self.shape;
        let of = |rows: usize| format!("{rows}×{width}");
        let each = 12 * width * width + 4 * width;
        let mut lines = vec![
            line("te", "token table, also the head", &of(context), vocab * width),
            line("pe", "positions, added", &of(context), context * width),
        ];
        let operation = format!("attention of {heads} heads, dense, GELU");
        lines.extend((0..layers).map(|i| line(&format!("bl.{i}"), &operation, &of(context), each)));
        lines.push(line("ln", "layer norm", &of(context), 2 * width));
        lines.push(line("head", "dense, the token table", &format!("{context}×{vocab}"), 0));
        lines
    }
}

fn block(params: &ParamBuilder, width: usize, heads: usize) -> Result<Block> {
    let linear = |name: &str, outputs, inputs, activation| {
        Linear::without_bias(matrix(&params.pp(name), outputs, inputs)?, activation)
    };
    Ok(Block {
        ln1: LayerNorm::new(&params.pp("ln1"), width, EPS)?,
        qkv: linear("qkv", 3 * width, width, Activation::None)?,
        o: linear("o", width, width, Activation::None)?,
        ln2: LayerNorm::new(&params.pp("ln2"), width, EPS)?,
        u: linear("u", 4 * width, width, Activation::Gelu)?,
        v: linear("v", width, 4 * width, Activation::None)?,
        heads,
    })
}

/// A parameter `weight` (rows, cols), normally distributed.
fn matrix(params: &ParamBuilder, rows: usize, cols: usize) -> Result<Param> {
    // He's rule for 6 inputs draws from [-1, 1), a function of the seed, the name and the position.
    let weight = params.param("weight", (rows, cols), Init::He { fan_in: 6 })?;
    weight.update(|values| values.iter_mut().for_each(|v| *v = normal(*v)))?;
    Ok(weight)
}

/// A normal number from a uniform one in [-1, 1), by Box and Muller (1958); the angle is a hash of
/// it. In `f64`: where C libraries differ in the last bit of a logarithm, rounding to `f32` hides it.
fn normal(uniform: f32) -> f32 {
    let share = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    // 24 bits come in; below them the hash fills up, so that the tail has no steps.
    let bits = mix(u64::from(uniform.to_bits()));
    let radius = 0.5 * (f64::from(uniform) + 1.0) + share(bits) / f64::from(1 << 24);
    let angle = std::f64::consts::TAU * share(mix(bits));
    (SPREAD * (-2.0 * radius.ln()).sqrt() * angle.cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::random_tensor;
    use crate::nn::{ParamSet, cross_entropy, probe};
    use candle_core::Device;

    const SHAPE: GptShape = GptShape { vocab: 11, context: 8, width: 16, layers: 2, heads: 2 };
    const TOKENS: [u32; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1];

    fn make(shape: &GptShape) -> (ParamSet, Gpt) {
        let params = ParamBuilder::new(3, &Device::Cpu);
        let model = Gpt::new(shape, &params).unwrap();
        (params.finish(1 << 16, 1 << 20).unwrap(), model)
    }

    #[test]
    fn new_matrices_are_normally_distributed() {
        let params = ParamBuilder::new(3, &Device::Cpu);
        let values = matrix(&params, 400, 500).unwrap().to_vec().unwrap();
        let share = |limit: f32| {
            let inside = values.iter().filter(|v| v.abs() < limit * SPREAD as f32).count();
            inside as f64 / values.len() as f64
        };
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 2e-4, "{mean}");
        for (limit, expected) in [(0.5, 0.3829), (1.0, 0.6827), (2.0, 0.9545), (3.0, 0.9973)] {
            assert!((share(limit) - expected).abs() < 0.004, "{limit}: {}", share(limit));
        }
        let distinct: std::collections::BTreeSet<u32> =
            values.iter().map(|v| v.to_bits()).collect();
        assert!(distinct.len() > values.len() * 95 / 100, "{}", distinct.len());
        assert_ne!(values[..8], matrix(&params.pp("b"), 1, 8).unwrap().to_vec().unwrap());
    }

    #[test]
    fn every_parameter_receives_a_gradient() {
        let (set, model) = make(&SHAPE);
        probe(&set, || {
            let logits = model.forward(&TOKENS, 2)?;
            Ok(cross_entropy(&logits, &[3; 12])?.sum_all()?)
        })
        .unwrap();
        assert_eq!(set.count(), 11 * 16 + 8 * 16 + 2 * (12 * 16 * 16 + 4 * 16) + 2 * 16);
    }

    #[test]
    fn a_sequence_alone_has_the_logits_it_has_in_a_batch_and_its_start_is_independent_of_its_end() {
        let (set, model) = make(&SHAPE);
        for (i, param) in set.iter().enumerate() {
            let values = random_tensor(param.tensor().dims(), i as u64).flatten_all().unwrap();
            let values = values.to_vec1::<f32>().unwrap();
            param.update(|v| v.copy_from_slice(&values)).unwrap();
        }
        let logits =
            |tokens: &[u32], batch| model.forward(tokens, batch).unwrap().to_vec2::<f32>().unwrap();
        let together = logits(&TOKENS, 2);
        for alone in [logits(&TOKENS[6..], 1), logits(&TOKENS[6..9], 1)] {
            for (a, b) in together[6..].iter().flatten().zip(alone.iter().flatten()) {
                assert!((a - b).abs() < 1e-3, "{a} {b}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_in_words() {
        let odd = GptShape { heads: 3, ..SHAPE };
        let error = Gpt::new(&odd, &ParamBuilder::new(1, &Device::Cpu)).err().unwrap();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains("width 16, layers 2, heads 3"), "{error}");
        let (_, model) = make(&SHAPE);
        for (tokens, batch) in [(&[1u32; 9][..], 1), (&[1; 9], 2), (&[1; 3], 0), (&[11; 2], 1)] {
            assert_eq!(model.forward(tokens, batch).err().unwrap().exit_code(), 65);
        }
        assert_eq!(model.forward(&[], 0).unwrap().dims(), [0, 11]);
    }
}
