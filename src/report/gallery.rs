//! A few pictures side by side: on a terminal with colours, or in a PNG file.

use crate::error::{Error, Result};
use std::fmt::Write;
use std::path::Path;

/// Pixels between two pictures of a sheet.
const GAP: usize = 2;

/// Pictures wider than this are made smaller for a terminal.
const WIDEST: usize = 40;

/// A picture in colours of 0..=255.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    rows: usize,
    columns: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    /// Of `values` (channels, rows, columns), of which `range` is black to white. Three channels are red, green
    /// and blue; of another number, the first is shown as grey. `None` if it is no picture.
    #[must_use]
    pub fn of(values: &[f32], shape: &[usize], range: [f32; 2]) -> Option<Picture> {
        let &[channels, rows, columns] = shape else { return None };
        let area = rows * columns;
        if area == 0 || channels * area != values.len() {
            return None;
        }
        let level = |v: f32| (255.0 * (v - range[0]) / (range[1] - range[0])).round() as u8;
        let pixel = |i: usize| match channels {
            3 => [0, 1, 2].map(|c| level(values[c * area + i])),
            _ => [level(values[i]); 3],
        };
        Some(Picture { rows, columns, pixels: (0..area).map(pixel).collect() })
    }

    /// No wider than `most` pixels, by leaving pixels out.
    fn shrunk(&self, most: usize) -> Picture {
        let step = self.columns.div_ceil(most).max(1);
        let (rows, columns) = (self.rows.div_ceil(step), self.columns.div_ceil(step));
        let pixel = |i: usize| self.pixels[i / columns * step * self.columns + i % columns * step];
        Picture { rows, columns, pixels: (0..rows * columns).map(pixel).collect() }
    }
}

/// Pictures of one size for a terminal of `width` columns that shows 24-bit colours; two rows of pixels make one
/// line. Under each picture is its caption.
#[must_use]
pub fn on_terminal(pictures: &[(Picture, String)], width: usize) -> String {
    let small: Vec<(Picture, &String)> =
        pictures.iter().map(|(p, caption)| (p.shrunk(WIDEST.min(width)), caption)).collect();
    let Some(columns) = small.first().map(|(p, _)| p.columns) else { return String::new() };
    let mut text = String::new();
    for line in small.chunks((width / (columns + 1)).max(1)) {
        let rows = line[0].0.rows;
        for row in (0..rows).step_by(2) {
            for (picture, _) in line {
                for column in 0..columns {
                    let at = |row: usize| picture.pixels.get(row * columns + column).copied();
                    let [[r, g, b], [x, y, z]] =
                        [at(row), at(row + 1)].map(Option::unwrap_or_default);
                    // Writing to a string cannot fail.
                    let _ = write!(text, "\x1b[38;2;{r};{g};{b}m\x1b[48;2;{x};{y};{z}m▀");
                }
                text.push_str("\x1b[0m ");
            }
            text.push('\n');
        }
        for (_, caption) in line {
            let _ = write!(text, "{caption:<columns$.columns$} ");
        }
        text.push('\n');
    }
    text
}

/// Writes pictures of one size as a PNG, row by row; gives the number of pictures in a row.
///
/// # Errors
/// When the file cannot be written.
pub fn sheet(pictures: &[(Picture, String)], path: &Path) -> Result<usize> {
    let Some((first, _)) = pictures.first() else { return Ok(0) };
    let across = (pictures.len() as f64).sqrt().ceil() as usize;
    let down = pictures.len().div_ceil(across);
    let [width, height] = [across * (first.columns + GAP) + GAP, down * (first.rows + GAP) + GAP];
    let mut bytes = vec![128; 3 * width * height];
    for (i, (picture, _)) in pictures.iter().enumerate() {
        let [left, top] =
            [i % across * (first.columns + GAP) + GAP, i / across * (first.rows + GAP) + GAP];
        for (j, pixel) in picture.pixels.iter().enumerate() {
            let at = (top + j / picture.columns) * width + left + j % picture.columns;
            bytes[3 * at..3 * at + 3].copy_from_slice(pixel);
        }
    }
    let [width, height] = [width, height].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    let image = image::RgbImage::from_raw(width, height, bytes)
        .ok_or_else(|| Error::Internal("a sheet of pictures is too large".to_owned()))?;
    image.save_with_format(path, image::ImageFormat::Png).map_err(|e| match e {
        image::ImageError::IoError(e) => Error::writing(path, &e),
        e => Error::Internal(format!("{}: {e}", path.display())),
    })?;
    Ok(across)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_the_colours_of_its_channels_and_is_clamped_to_the_range() {
        let values = [0.0, 1.0, 2.0, -1.0, 0.5, 0.0];
        let rgb = Picture::of(&values, &[3, 1, 2], [0.0, 1.0]).unwrap();
        assert_eq!(rgb.pixels, [[0, 255, 128], [255, 0, 0]]);
        let grey = Picture::of(&values, &[1, 2, 3], [0.0, 2.0]).unwrap();
        assert_eq!(grey.pixels[1], [128; 3]);
        assert_eq!(Picture::of(&values, &[6], [0.0, 1.0]), None);
        assert_eq!(grey.shrunk(2).pixels, [[0; 3], [255; 3]]);
    }

    #[test]
    fn a_sheet_has_every_picture_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sheet.png");
        let one = |v: f32| (Picture::of(&[v; 6], &[1, 2, 3], [0.0, 1.0]).unwrap(), String::new());
        assert_eq!(sheet(&[one(0.0), one(0.2), one(0.4), one(1.0), one(0.6)], &path).unwrap(), 3);
        let image = image::open(&path).unwrap().to_rgb8();
        assert_eq!(image.dimensions(), (17, 10));
        assert_eq!([image[(2, 2)], image[(7, 3)], image[(4, 7)]].map(|p| p.0[0]), [0, 51, 255]);
        assert_eq!([image[(0, 0)], image[(13, 8)]].map(|p| p.0[0]), [128, 128]);
    }

    #[test]
    fn a_terminal_shows_as_many_pictures_in_a_line_as_fit() {
        let one = |name: &str| {
            (Picture::of(&[0.5; 12], &[1, 3, 4], [0.0, 1.0]).unwrap(), name.to_owned())
        };
        let text = on_terminal(&[one("a"), one("b"), one("c")], 11);
        assert_eq!(text.lines().count(), 2 * 3);
        assert_eq!(text.matches('▀').count(), 3 * 2 * 4);
        assert!(text.contains("a    b    \n") && text.ends_with("c    \n"));
    }
}
