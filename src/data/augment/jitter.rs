//! Brightness, contrast and saturation, each by a factor that is uniform in 1 − x to 1 + x, in this
//! order, each clamped to black and white as in torchvision's `ColorJitter`.
//!
//! Pixels are already normalised, p' = (p − mean) / std with one mean and std for all channels. In these
//! units p · f is p' · f + (f − 1) · mean / std, and blends with a grey are what they were. A factor of 1
//! is exact.

use super::{Scratch, Size, Tones, Transform};
use crate::config;
use crate::util::rng::Rng;

/// Shares of red, green and blue in a grey (ITU-R BT.601).
const GREY: [f32; 3] = [0.299, 0.587, 0.114];

#[derive(Debug)]
pub(super) struct Jitter {
    brightness: f32,
    contrast: f32,
    saturation: f32,
    /// What a pixel of brightness 0 is short of, in units of its normalised value: mean / std.
    offset: f32,
    black: f32,
    white: f32,
}

impl Jitter {
    /// Saturation needs images of 3 channels.
    pub fn new(wanted: &config::Transform, tones: Tones, size: Size) -> Result<Jitter, String> {
        let saturation = wanted.saturation.unwrap_or(0.0);
        if saturation > 0.0 && size.channels != 3 {
            return Err(format!(
                "saturation is for images of 3 channels, these have {}; remove it",
                size.channels
            ));
        }
        Ok(Jitter {
            brightness: wanted.brightness.unwrap_or(0.0),
            contrast: wanted.contrast.unwrap_or(0.0),
            saturation,
            offset: tones.normalize.mean / tones.normalize.std,
            black: tones.of(0.0),
            white: tones.of(1.0),
        })
    }

    /// `value` · `factor` + `rest`, within black and white.
    fn tone(&self, value: f32, factor: f32, rest: f32) -> f32 {
        (value * factor + rest).clamp(self.black, self.white)
    }
}

impl Transform for Jitter {
    fn apply(&self, image: &mut [f32], size: Size, rng: &mut Rng, _: &mut Scratch) {
        let mut factor = |x: f32| 1.0 + rng.symmetric(x);
        let strengths = [self.brightness, self.contrast, self.saturation];
        let [bright, contrast, saturation] = strengths.map(&mut factor);
        if self.brightness > 0.0 {
            let rest = (bright - 1.0) * self.offset;
            image.iter_mut().for_each(|v| *v = self.tone(*v, bright, rest));
        }
        if self.contrast > 0.0 {
            let rest = (1.0 - contrast) * mean_grey(image, size);
            image.iter_mut().for_each(|v| *v = self.tone(*v, contrast, rest));
        }
        if self.saturation > 0.0 {
            let (red, rest) = image.split_at_mut(size.plane());
            let (green, blue) = rest.split_at_mut(size.plane());
            for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
                let grey = (1.0 - saturation) * (GREY[0] * *r + GREY[1] * *g + GREY[2] * *b);
                for v in [r, g, b] {
                    *v = self.tone(*v, saturation, grey);
                }
            }
        }
    }
}

/// The mean of all pixels' greys; of all values where there are not 3 channels.
fn mean_grey(image: &[f32], size: Size) -> f32 {
    let mean = |plane: &[f32]| sum(plane) / plane.len() as f32;
    match size.channels {
        3 => image.chunks_exact(size.plane()).zip(GREY).map(|(p, share)| share * mean(p)).sum(),
        _ => mean(image),
    }
}

/// The sum in eight lanes, so that it is fast and always the same.
fn sum(values: &[f32]) -> f32 {
    let (eights, rest) = values.as_chunks::<8>();
    let mut lanes = [0.0f32; 8];
    for eight in eights {
        lanes.iter_mut().zip(eight).for_each(|(lane, v)| *lane += v);
    }
    lanes.iter().chain(rest).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Normalize;
    use crate::util::rng::Purpose;

    const SIZE: Size = Size { channels: 3, rows: 1, columns: 2 };
    /// Red, green and blue of two pixels.
    const PIXELS: [f32; 6] = [0.9, 0.2, 0.5, 0.4, 0.1, 0.6];

    /// What becomes of the pixels with one strength of 0.5, and the factor that was drawn.
    fn jittered(name: &str, mean: f32, std: f32) -> (Vec<f32>, f32) {
        let wanted = serde_json::json!({"kind": "jitter", name: 0.5});
        let wanted: config::Transform = serde_json::from_value(wanted).unwrap();
        let tones = Tones { normalize: Normalize { mean, std } };
        let mut image = PIXELS.map(|p| tones.of(p)).to_vec();
        let stream = || Rng::new(5, Purpose::Synthetic, 0, 0, 0);
        let jitter = Jitter::new(&wanted, tones, SIZE).unwrap();
        jitter.apply(&mut image, SIZE, &mut stream(), &mut Scratch::default());
        let place = ["brightness", "contrast", "saturation"].iter().position(|n| *n == name);
        let mut rng = stream();
        let factors = [(); 3].map(|()| 1.0 + rng.symmetric(0.5));
        // A strength of 0 takes its draw, too, so that fields can be added without other changes.
        let pixels = image.iter().map(|v| v * std + mean).collect();
        (pixels, factors[place.unwrap()])
    }

    #[test]
    fn each_factor_does_what_it_says_whatever_the_normalisation() {
        let grey =
            |i: usize| GREY[0] * PIXELS[i] + GREY[1] * PIXELS[2 + i] + GREY[2] * PIXELS[4 + i];
        let mean = (grey(0) + grey(1)) / 2.0;
        for (m, s) in [(0.0, 1.0), (0.1307, 0.3081), (0.5, 0.25)] {
            for name in ["brightness", "contrast", "saturation"] {
                let (seen, f) = jittered(name, m, s);
                assert!((f - 1.0).abs() > 0.05, "a factor of {f} shows nothing");
                for (i, (seen, p)) in seen.iter().zip(PIXELS).enumerate() {
                    let wanted = match name {
                        "brightness" => p * f,
                        "contrast" => mean + (p - mean) * f,
                        _ => grey(i % 2) + (p - grey(i % 2)) * f,
                    };
                    let wanted = wanted.clamp(0.0, 1.0);
                    assert!((seen - wanted).abs() < 1e-5, "{name} {f}: {seen}, not {wanted}");
                }
            }
        }
    }

    #[test]
    fn saturation_of_a_grey_image_is_refused() {
        let wanted = serde_json::json!({"kind": "jitter", "saturation": 0.5});
        let wanted: config::Transform = serde_json::from_value(wanted).unwrap();
        let tones = Tones { normalize: Normalize::default() };
        let refused = Jitter::new(&wanted, tones, Size { channels: 1, ..SIZE }).unwrap_err();
        assert!(refused.contains("3 channels, these have 1"), "{refused}");
    }

    #[test]
    fn the_sum_takes_every_value() {
        for n in [0, 1, 7, 8, 9, 784] {
            let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(sum(&values), (0..n).sum::<usize>() as f32);
        }
    }
}
