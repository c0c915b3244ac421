//! How pictures become samples: [`Pictures`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How pictures become samples. EXIF, its orientation too, is not looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pictures {
    /// Grey or colour, whatever the files hold.
    #[serde(default)]
    pub color: Color,
    /// Rows and columns that each picture is scaled to, whatever its shape; without it, all pictures must be
    /// of one size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(inner(range(min = 1, max = 8192)))]
    pub resize: Option<[u32; 2]>,
    /// How they are scaled; `bilinear` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
}

/// Channels of a picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// One.
    Grey,
    /// Red, green, blue.
    #[default]
    Rgb,
}

/// Ways to scale a picture, as in Pillow: where it becomes smaller, all but `nearest` look at every pixel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// The pixel under the middle of the new one.
    Nearest,
    /// A triangle of neighbours.
    #[default]
    Bilinear,
    /// A cubic, a = −0.5.
    Bicubic,
    /// Lanczos with 3 lobes.
    Lanczos,
}
