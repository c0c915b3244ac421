//! How training samples are drawn and changed: [`Sampling`], [`Transform`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One random change of each training image. A field that the chosen kind does not use must be left
/// out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    /// Which change.
    pub kind: TransformKind,
    /// The share of the images that are changed; 0.5 for flip and erase and 1 for the others when left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub probability: Option<f32>,
    /// By up to so many pixels each way (shift, crop).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65536))]
    pub pixels: Option<usize>,
    /// Which sides change places (flip); horizontal (left and right) when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<Axis>,
    /// By up to so many degrees either way (rotate).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 180))]
    pub degrees: Option<f32>,
    /// How far pixels move, α of the paper (elastic; 34 when left out), or the Beta distribution's
    /// parameter (mixup, 0.2; cutmix, 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub alpha: Option<f32>,
    /// Pixels over which neighbours move together (elastic); 4 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 64), extend("exclusiveMinimum" = 0))]
    pub sigma: Option<f32>,
    /// Multiplies all pixels by 1 − x to 1 + x (jitter); 0 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub brightness: Option<f32>,
    /// Multiplies the distances from the mean grey by 1 − x to 1 + x (jitter); 0 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub contrast: Option<f32>,
    /// Multiplies each pixel's distance from its own grey by 1 − x to 1 + x (jitter of 3 channels); 0
    /// when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub saturation: Option<f32>,
    /// Least and largest share of the image that is erased (erase); [0.02, 0.33] when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub area: Option<[f32; 2]>,
    /// What comes where no pixel is (shift, rotate, elastic, erase), on the scale 0..1 before
    /// normalisation; 0 (black) when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub fill: Option<f32>,
}

/// Changes of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TransformKind {
    /// Moved by whole pixels; the same as padding with `fill` and a random crop.
    Shift,
    /// Padded by mirroring, then a window of the image's size is cut out at a random place.
    Crop,
    /// Mirrored.
    Flip,
    /// Turned about the centre.
    Rotate,
    /// Elastic distortion (Simard et al., 2003).
    Elastic,
    /// Brightness, contrast, saturation.
    Jitter,
    /// A rectangle is erased (Zhong et al., 2017).
    Erase,
    /// Two images and their labels are blended (Zhang et al., 2018).
    Mixup,
    /// A rectangle and its share of the label come from another image (Yun et al., 2019).
    Cutmix,
}

impl TransformKind {
    /// Whether it takes a second image.
    #[must_use]
    pub fn is_of_two(self) -> bool {
        matches!(self, TransformKind::Mixup | TransformKind::Cutmix)
    }
}

/// Directions of a flip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// Left and right change places.
    #[default]
    Horizontal,
    /// Top and bottom change places.
    Vertical,
}

impl Transform {
    /// What is wrong with the fields taken together: the field, and what is wrong with it.
    pub(super) fn problems(&self) -> Vec<(&'static str, &'static str)> {
        use TransformKind::{Crop, Cutmix, Elastic, Erase, Flip, Jitter, Mixup, Rotate, Shift};
        let is = |kinds: &[TransformKind]| kinds.contains(&self.kind);
        let tones = [self.brightness.is_some(), self.contrast.is_some(), self.saturation.is_some()];
        let mut found = Vec::new();
        for (given, users, field, what) in [
            (self.pixels.is_some(), &[Shift, Crop][..], "pixels", "is used by shift and crop only"),
            (self.axis.is_some(), &[Flip], "axis", "is used by flip only"),
            (self.degrees.is_some(), &[Rotate], "degrees", "is used by rotate only"),
            (
                self.alpha.is_some(),
                &[Elastic, Mixup, Cutmix],
                "alpha",
                "is used by elastic, mixup and cutmix only",
            ),
            (self.sigma.is_some(), &[Elastic], "sigma", "is used by elastic only"),
            (tones[0], &[Jitter], "brightness", "is used by jitter only"),
            (tones[1], &[Jitter], "contrast", "is used by jitter only"),
            (tones[2], &[Jitter], "saturation", "is used by jitter only"),
            (self.area.is_some(), &[Erase], "area", "is used by erase only"),
            (
                self.fill.is_some(),
                &[Shift, Rotate, Elastic, Erase],
                "fill",
                "is used by shift, rotate, elastic and erase only",
            ),
        ] {
            if given && !is(users) {
                found.push((field, what));
            }
        }
        for (missing, field, what) in [
            (is(&[Shift, Crop]) && self.pixels.is_none(), "pixels", "is missing; give a number"),
            (is(&[Rotate]) && self.degrees.is_none(), "degrees", "is missing; give an angle"),
            (
                is(&[Jitter]) && tones == [false; 3],
                "brightness",
                "is missing; jitter needs brightness, contrast or saturation",
            ),
            (
                is(&[Mixup, Cutmix]) && self.alpha == Some(0.0),
                "alpha",
                "is 0, which mixes nothing; give a number above 0 or leave the transform out",
            ),
            (
                self.area.is_some_and(|[a, b]| !(0.0 < a && a <= b && b < 1.0)),
                "area",
                "is not a range of shares above 0 and below 1, like [0.02, 0.33]",
            ),
        ] {
            if missing {
                found.push((field, what));
            }
        }
        found
    }
}

/// How the samples of an epoch are drawn. An epoch has as many draws as there are samples, whatever
/// the kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Which way.
    pub kind: SamplingKind,
    /// The weight of each sample of class 0, 1, … (weighted).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(range(min = 0)))]
    pub weights: Vec<f64>,
}

/// Ways to draw samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SamplingKind {
    /// Each sample once.
    #[default]
    Uniform,
    /// With replacement, each class equally often in the mean, however many samples it has.
    Balanced,
    /// With replacement, each sample in proportion to the weight of its class.
    Weighted,
}
