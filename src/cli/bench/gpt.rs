//! A small GPT on made-up tokens.

use super::step::{Phases, Trainee};
use crate::collective::Group;
use crate::config::{self, Comm, OptimizerKind};
use crate::error::Result;
use crate::model::{Gpt, GptShape};
use crate::nn::{BucketBytes, ParamBuilder, ParamSet, cross_entropy, probe};
use crate::optim::{self, Optimizer};
use crate::train::{Device, Tally, Votes, reduce};
use crate::util::rng::{Purpose, Rng};
use candle_core::Tensor;
use std::time::{Duration, Instant};

/// 10.75 million parameters: one position's vocabulary is the 65 characters of Shakespeare's plays.
const SHAPE: GptShape = GptShape { vocab: 65, context: 256, width: 384, layers: 6, heads: 6 };
const SEED: u64 = 42;
const RATE: f64 = 1e-4;

/// The model with its optimizer and gradient buckets.
pub struct Tokens {
    model: Gpt,
    params: ParamSet,
    optimizer: Box<dyn Optimizer>,
    batch: usize,
    step: u64,
}

impl Tokens {
    /// The model with `batch` sequences for each rank.
    ///
    /// # Errors
    /// When memory or the device is missing.
    pub fn new(batch: usize, device: Device, group: &mut Group) -> Result<Tokens> {
        let device = group.together(device.open(group.local_rank(), group.local_ranks()))?;
        let builder = ParamBuilder::new(SEED, &device);
        let built = Gpt::new(&SHAPE, &builder);
        let model = group.together(built)?;
        let comm = Comm::default();
        let bytes = |mb: f64| (mb * 1e6) as usize;
        let buckets =
            BucketBytes { first: bytes(comm.first_bucket_mb), others: bytes(comm.bucket_mb) };
        let mut params = builder.finish(buckets.first, buckets.others)?;
        let lens: Vec<usize> = params.iter().map(|p| p.var().elem_count()).collect();
        let card = config::Optimizer {
            kind: OptimizerKind::Adamw,
            lr: RATE,
            weight_decay: 0.01,
            ..Default::default()
        };
        let optimizer = optim::build(&card, &lens)?;
        // The order in which gradients become final, so that buckets are laid out as in training.
        let (tokens, next) = sequences(2, 0);
        let loss = || Ok(cross_entropy(&model.forward(&tokens, 2)?, &next)?.sum_all()?);
        let course = group.together(probe(&params, loss))?;
        group.require_equal("the order of the gradients", &format!("{course:?}"))?;
        params.lay_out(&course, buckets, &mut |len| group.shared_buffer(len))?;
        Ok(Tokens { model, params, optimizer, batch, step: 0 })
    }

    /// One step. Every rank has sequences of its own.
    fn one(&mut self, overlap: bool, group: &mut Group) -> Result<Phases> {
        let (start, mut phases) = (Instant::now(), Phases::default());
        let (rank, ranks, batch) = (group.rank() as u64, group.size() as u64, self.batch as u64);
        let (tokens, next) = sequences(self.batch, (self.step * ranks + rank) * batch);
        self.step += 1;
        phases.input = start.elapsed();
        self.params.grads().begin_step();
        let weight = (next.len() * group.size()) as f64;
        let (model, batch) = (&self.model, self.batch);
        let mut pass = || {
            let (forward, backward, tally) =
                forward_backward(model, &tokens, &next, batch, weight)?;
            (phases.forward, phases.backward) = (forward, backward);
            Ok(tally)
        };
        let reduced = if overlap {
            reduce::during(&self.params, group, Tally::default(), Votes::default(), pass)?
        } else {
            let tally = pass()?;
            reduce::after(self.params.grads(), group, tally, Votes::default())?
        };
        phases.comm = reduced.exposed;
        let update = Instant::now();
        self.optimizer.begin_step(RATE);
        let grads = self.params.grads();
        for (i, param) in self.params.iter().enumerate() {
            let rule = &mut *self.optimizer;
            param.update(|theta| grads.read(i, |grad| rule.update(i, theta, grad, 1.0)))?;
        }
        phases.optimizer = update.elapsed();
        phases.wall = start.elapsed();
        Ok(phases)
    }
}

/// Forward and backward pass, with the time of each.
fn forward_backward(
    model: &Gpt,
    tokens: &[u32],
    next: &[u32],
    batch: usize,
    weight: f64,
) -> Result<(Duration, Duration, Tally)> {
    let start = Instant::now();
    let losses: Tensor = cross_entropy(&model.forward(tokens, batch)?, next)?;
    let sum = losses.sum_all()?;
    let loss = f64::from(sum.to_scalar::<f32>()?);
    let turn = Instant::now();
    (sum * (1.0 / weight))?.backward()?;
    let tally = Tally { loss, correct: 0.0, count: next.len() as f64 };
    Ok((turn - start, turn.elapsed(), tally))
}

/// `batch` sequences of made-up tokens, and for each token the one that follows it.
fn sequences(batch: usize, first: u64) -> (Vec<u32>, Vec<u32>) {
    let (mut tokens, mut next) = (Vec::new(), Vec::new());
    for sample in first..first + batch as u64 {
        let mut rng = Rng::new(SEED, Purpose::Synthetic, 0, 0, sample);
        let drawn: Vec<u32> =
            (0..=SHAPE.context).map(|_| rng.next_u32() % SHAPE.vocab as u32).collect();
        tokens.extend(&drawn[..SHAPE.context]);
        next.extend(&drawn[1..]);
    }
    (tokens, next)
}

impl Trainee for Tokens {
    fn take(&mut self, steps: u64, overlap: bool, group: &mut Group) -> Result<Vec<Phases>> {
        (0..steps).map(|_| self.one(overlap, group)).collect()
    }

    fn parameters(&self) -> usize {
        self.params.count()
    }

    fn batch(&self) -> usize {
        self.batch
    }

    fn unit(&self) -> &'static str {
        "tokens"
    }

    fn units(&self) -> f64 {
        (self.batch * SHAPE.context) as f64
    }

    fn flops(&self) -> Option<f64> {
        Some(training_flops(&SHAPE))
    }
}

/// Floating-point operations of one token's training: each product forward, for the gradient of its
/// weights, and for that of its input. In attention a token meets itself and those before it.
fn training_flops(shape: &GptShape) -> f64 {
    let GptShape { vocab, context, width, layers, .. } = *shape;
    let dense = layers * 12 * width * width + vocab * width;
    let attention = layers * width * (context + 1);
    6.0 * (dense + attention) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_for_each_product_of_a_training_step() {
        // One block of width 2 over 3 positions: 48 in dense layers, a head of 5 tokens 10; attention
        // 2 products of width 2 with 2 positions on average.
        let shape = GptShape { vocab: 5, context: 3, width: 2, layers: 1, heads: 1 };
        assert_eq!(training_flops(&shape), 6.0 * (48.0 + 10.0 + 8.0));
    }

    #[test]
    fn sequences_are_the_same_wherever_they_are_drawn_and_follow_their_tokens() {
        let (tokens, next) = sequences(3, 7);
        assert_eq!(tokens[1..SHAPE.context], next[..SHAPE.context - 1]);
        assert_eq!(tokens[SHAPE.context..2 * SHAPE.context], sequences(1, 8).0);
        assert!(tokens.iter().chain(&next).all(|&t| (t as usize) < SHAPE.vocab));
        assert_ne!(sequences(1, 7), sequences(1, 8));
    }
}
