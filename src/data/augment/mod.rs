//! Random changes of the training images.
//!
//! What happens to an image is a pure function of (seed, epoch, key of the draw, place of the transform
//! in the card's list); the key is the sample's index, or the place in the epoch where samples are drawn
//! with replacement. Rank, thread and order have no part in it, so any rank count and a resumed run
//! see the same pictures. All is done in the thread that reads ahead, in place, and in the steady
//! state without allocation.
//!
//! | file | holds | |
//! |---|---|---|
//! | [`shift`] | moved by whole pixels | copies |
//! | [`crop`] | padded by mirroring, then cut out | copies |
//! | [`flip`] | mirrored | copies |
//! | [`rotate`] | turned about the centre | bilinear |
//! | [`elastic`] | elastic distortion | bilinear |
//! | [`jitter`] | brightness, contrast, saturation | arithmetic |
//! | [`erase`] | a rectangle is erased | copies |
//! | [`mix`] | mixup, cutmix | a second image is read |
//! | [`warp`] | the bilinear sampling of two of them | |
//! | [`beta`] | the Beta distribution | |
//!
//! To add one: copy a neighbour, add its kind to `config/augment.rs` and a line to [`build`].
//!
//! Angles, kernels and Beta draws are computed in `f64` and rounded to `f32`, so that mathematical
//! libraries that differ in a last bit still give the same picture.

mod beta;
mod crop;
mod elastic;
mod erase;
mod flip;
mod jitter;
mod mix;
mod rotate;
mod shift;
#[cfg(test)]
mod tests;
mod warp;

use super::sampling::Draws;
use super::{Batch, Dataset};
use crate::config::{Normalize, Transform as Wanted, TransformKind as Kind};
use crate::error::{Error, Result};
use crate::util::rng::{Purpose, Rng};
use mix::Mix;
use std::fmt::Debug;

/// The size of an image: `channels` planes of `rows` × `columns` numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    channels: usize,
    rows: usize,
    columns: usize,
}

impl Size {
    /// Numbers in one channel.
    fn plane(self) -> usize {
        self.rows * self.columns
    }
}

/// Where black and white lie after the normalisation.
#[derive(Debug, Clone, Copy)]
struct Tones {
    normalize: Normalize,
}

impl Tones {
    /// A pixel's value after the normalisation, by the same arithmetic as in the data set.
    fn of(self, pixel: f32) -> f32 {
        (pixel - self.normalize.mean) / self.normalize.std
    }
}

/// Memory that transforms use and leave in any state.
#[derive(Debug, Default)]
struct Scratch {
    /// A copy of the image.
    image: Vec<f32>,
    /// For a row of pixels.
    row: warp::Row,
    /// For elastic distortion.
    field: elastic::Field,
}

/// A change of one image.
trait Transform: Send + Sync + Debug {
    /// Changes `image`, with draws from `rng` alone.
    fn apply(&self, image: &mut [f32], size: Size, rng: &mut Rng, scratch: &mut Scratch);
}

#[derive(Debug)]
struct Step {
    probability: f32,
    transform: Box<dyn Transform>,
}

/// The changes that a card asks for. By default none.
#[derive(Debug, Default)]
pub struct Augment {
    seed: u64,
    size: Size,
    steps: Vec<Step>,
    /// The first that applies is done; their places in the card's list come after those of `steps`.
    mixes: Vec<(f32, Mix)>,
}

impl Augment {
    /// The changes `wanted` for images of `shape`.
    ///
    /// # Errors
    /// [`Error::Config`] when a change does not fit the shape.
    pub fn new(
        wanted: &[Wanted],
        normalize: Normalize,
        seed: u64,
        shape: &[usize],
    ) -> Result<Augment> {
        if wanted.is_empty() {
            return Ok(Augment::default());
        }
        let [channels, rows, columns] = *shape else {
            return Err(Error::Config(format!(
                "data.augment changes images of (channels, rows, columns), but the samples have shape \
                 {shape:?}; remove it"
            )));
        };
        let mut augment =
            Augment { seed, size: Size { channels, rows, columns }, ..Self::default() };
        let tones = Tones { normalize };
        for (i, wanted) in wanted.iter().enumerate() {
            let often = matches!(wanted.kind, Kind::Flip | Kind::Erase);
            let probability = wanted.probability.unwrap_or(if often { 0.5 } else { 1.0 });
            if let Some(mix) = Mix::of(wanted) {
                augment.mixes.push((probability, mix));
                continue;
            }
            let transform = build(wanted, tones, augment.size)
                .map_err(|what| Error::Config(format!("data.augment.{i}: {what}")))?;
            augment.steps.push(Step { probability, transform });
        }
        Ok(augment)
    }

    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.mixes.is_empty()
    }

    /// The random numbers of the transform at `place` of the card's list, and whether it applies.
    fn draw(&self, epoch: u64, key: u64, place: usize, probability: f32) -> Option<Rng> {
        let mut rng = Rng::new(self.seed, Purpose::Augment, epoch, place as u64, key);
        (rng.uniform() < probability).then_some(rng)
    }

    /// Does to one image what `epoch` and `key` ask for.
    fn change(&self, image: &mut [f32], epoch: u64, key: u64, scratch: &mut Scratch) {
        for (place, step) in self.steps.iter().enumerate() {
            if let Some(mut rng) = self.draw(epoch, key, place, step.probability) {
                step.transform.apply(image, self.size, &mut rng, scratch);
            }
        }
    }
}

/// The transform of one entry of the card's list; an error says what does not fit.
fn build(
    wanted: &Wanted,
    tones: Tones,
    size: Size,
) -> std::result::Result<Box<dyn Transform>, String> {
    let fill = tones.of(wanted.fill.unwrap_or(0.0));
    let pixels = wanted.pixels.unwrap_or(0);
    Ok(match wanted.kind {
        Kind::Shift => Box::new(shift::Shift { pixels, fill }),
        Kind::Crop => Box::new(crop::Crop::new(pixels, size)?),
        Kind::Flip => Box::new(flip::Flip { axis: wanted.axis.unwrap_or_default() }),
        Kind::Rotate => {
            Box::new(rotate::Rotate { degrees: wanted.degrees.unwrap_or(0.0).into(), fill })
        }
        Kind::Elastic => {
            let (alpha, sigma) = (wanted.alpha.unwrap_or(34.0), wanted.sigma.unwrap_or(4.0));
            Box::new(elastic::Elastic::new(alpha, sigma.into(), fill))
        }
        Kind::Jitter => Box::new(jitter::Jitter::new(wanted, tones, size)?),
        Kind::Erase => {
            let area = wanted.area.unwrap_or([0.02, 0.33]).map(f64::from);
            Box::new(erase::Erase { area, fill })
        }
        Kind::Mixup | Kind::Cutmix => return Err("is no change of a single image".to_owned()),
    })
}

/// Changes batches; one for each thread that does so.
#[derive(Debug)]
pub struct Worker<'a> {
    augment: &'a Augment,
    scratch: Scratch,
    partner: Vec<f32>,
}

impl<'a> Worker<'a> {
    /// A worker that has all its memory still to get.
    #[must_use]
    pub fn new(augment: &'a Augment) -> Worker<'a> {
        Worker { augment, scratch: Scratch::default(), partner: Vec::new() }
    }

    /// Changes the images of `batch`, which were just read from `dataset` at draws of `draws`.
    ///
    /// # Errors
    /// When the second image of a mixture cannot be read.
    pub fn change(
        &mut self,
        batch: &mut Batch,
        dataset: &dyn Dataset,
        draws: &Draws,
    ) -> Result<()> {
        let augment = self.augment;
        if augment.is_empty() {
            return Ok(());
        }
        let len = dataset.sample_len();
        for place in 0..batch.len() {
            let image = &mut batch.images[place * len..][..len];
            augment.change(image, batch.epoch, batch.keys[place], &mut self.scratch);
            if !augment.mixes.is_empty() {
                let own = (batch.labels[place], 0.0);
                let mixed = self.mix(image, batch.epoch, batch.keys[place], dataset, draws)?;
                batch.mixed.push(mixed.unwrap_or(own));
            }
        }
        Ok(())
    }

    /// Mixes another image into `image`, if one of the mixtures applies; gives the other label and its
    /// share. The other image is one that this epoch could draw, as it is in this epoch.
    fn mix(
        &mut self,
        image: &mut [f32],
        epoch: u64,
        key: u64,
        dataset: &dyn Dataset,
        draws: &Draws,
    ) -> Result<Option<(u32, f32)>> {
        let augment = self.augment;
        for (i, (probability, mix)) in augment.mixes.iter().enumerate() {
            let place = augment.steps.len() + i;
            let Some(mut rng) = augment.draw(epoch, key, place, *probability) else { continue };
            let other = draws.at(rng.below(draws.len()));
            self.partner.resize(image.len(), 0.0);
            let index = usize::try_from(other.sample).unwrap_or(usize::MAX);
            let label = dataset.read(index, &mut self.partner)?;
            augment.change(&mut self.partner, epoch, other.key, &mut self.scratch);
            return Ok(Some((label, mix.apply(image, &self.partner, augment.size, &mut rng))));
        }
        Ok(None)
    }
}
