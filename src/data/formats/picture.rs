//! A PNG or JPEG picture becomes rows of 8-bit pixels of the channels that the card asks for.
//!
//! Grey is 0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601, as Pillow's `L`). Transparency, colour
//! profiles and EXIF (its orientation, too) are left aside: pixels are taken as they are stored.

use crate::config::{Color, Filter, Normalize, Pictures};
use crate::data::{images, limits};
use image::imageops::FilterType;
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::io::Cursor;

/// How pictures become pixels.
#[derive(Debug, Clone, Copy)]
struct Decoder {
    color: Color,
    /// Rows and columns, and the way to get there.
    resize: Option<([u32; 2], FilterType)>,
}

/// A picture, or what is wrong with it.
pub type Decoded<T> = std::result::Result<T, String>;

/// Pictures of one size as samples.
#[derive(Debug)]
pub struct Samples {
    decoder: Decoder,
    /// Channels, rows, columns; rows and columns are 0 until there is a picture.
    shape: [usize; 3],
    table: [f32; 256],
}

impl Samples {
    /// As the card wishes them; no picture is known yet.
    pub fn new(wanted: Option<Pictures>, normalize: Normalize) -> Samples {
        let decoder = Decoder::new(&wanted.unwrap_or_default());
        Samples { shape: [decoder.channels(), 0, 0], decoder, table: images::table(normalize) }
    }

    /// Channels, rows, columns.
    pub fn shape(&self) -> &[usize; 3] {
        &self.shape
    }

    /// Looks at the header of a picture. The first one says which size all have.
    ///
    /// # Errors
    /// Why it is no picture that can be read, or which sizes differ.
    pub fn look(&mut self, bytes: &[u8]) -> Decoded<()> {
        let [rows, columns] = self.decoder.size(bytes)?;
        let [channels, first @ ..] = self.shape;
        if first == [0, 0] {
            self.shape = [channels, rows, columns];
        } else if first != [rows, columns] {
            return Err(format!(
                "has {rows} x {columns} pixels, but the first picture has {} x {}; all must be of one \
                 size, or data.pictures.resize makes them so",
                first[0], first[1]
            ));
        }
        Ok(())
    }

    /// Writes the normalised pixels of a picture, channel by channel, into the places of a sample.
    ///
    /// # Errors
    /// Why it cannot be read, or is not the picture that was looked at.
    pub fn read(&self, bytes: &[u8], out: &mut [f32]) -> Decoded<()> {
        let pixels = self.decoder.pixels(bytes)?;
        if pixels.len() != out.len() {
            return Err("has another size than when the job started".to_owned());
        }
        let [channels, rows, columns] = self.shape;
        for (place, pixel) in pixels.chunks_exact(channels).enumerate() {
            for (channel, &value) in pixel.iter().enumerate() {
                out[channel * rows * columns + place] = self.table[usize::from(value)];
            }
        }
        Ok(())
    }
}

/// Whether a file with this end of its name (no dot) is taken for a picture.
pub fn is_picture(extension: &str) -> bool {
    ["png", "jpg", "jpeg"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

impl Decoder {
    /// The card's wishes.
    fn new(wanted: &Pictures) -> Decoder {
        let filter = match wanted.filter.unwrap_or_default() {
            Filter::Nearest => FilterType::Nearest,
            Filter::Bilinear => FilterType::Triangle,
            Filter::Bicubic => FilterType::CatmullRom,
            Filter::Lanczos => FilterType::Lanczos3,
        };
        Decoder { color: wanted.color, resize: wanted.resize.map(|size| (size, filter)) }
    }

    /// Numbers of a pixel.
    fn channels(&self) -> usize {
        match self.color {
            Color::Grey => 1,
            Color::Rgb => 3,
        }
    }

    /// Rows and columns of the sample that `bytes` will be, from the picture's header.
    fn size(&self, bytes: &[u8]) -> Decoded<[usize; 2]> {
        let (width, height) = open(bytes)?.dimensions();
        let [rows, columns] = self.resize.map_or([height, width], |(size, _)| size);
        Ok([rows as usize, columns as usize])
    }

    /// The pixels of the sample, row by row, channels side by side.
    fn pixels(&self, bytes: &[u8]) -> Decoded<Vec<u8>> {
        let decoder = open(bytes)?;
        if decoder.total_bytes() > limits::PICTURE_MEMORY {
            return Err(format!("needs more than {} bytes", limits::PICTURE_MEMORY));
        }
        let image = DynamicImage::from_decoder(decoder)
            .map_err(|e| format!("is damaged, or cut: {}", plain(&e)))?;
        let image = match self.color {
            Color::Grey => DynamicImage::ImageLuma8(grey(image)),
            Color::Rgb => DynamicImage::ImageRgb8(image.into_rgb8()),
        };
        let image = match self.resize {
            Some(([rows, columns], filter)) => image.resize_exact(columns, rows, filter),
            None => image,
        };
        Ok(image.into_bytes())
    }
}

/// Rows, columns and pixels of a picture, row by row, channels side by side.
///
/// # Errors
/// Why it cannot be read.
pub fn decode(bytes: &[u8], wanted: &Pictures) -> Decoded<([usize; 2], Vec<u8>)> {
    let decoder = Decoder::new(wanted);
    Ok((decoder.size(bytes)?, decoder.pixels(bytes)?))
}

/// A decoder that has read the header, once it is known to be harmless.
fn open(bytes: &[u8]) -> Decoded<impl ImageDecoder + '_> {
    let format = match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => ImageFormat::Png,
        [0xff, 0xd8, 0xff, ..] => ImageFormat::Jpeg,
        [] => return Err("the file is empty".to_owned()),
        _ => {
            let start = &bytes[..bytes.len().min(4)];
            let start: Vec<_> = start.iter().map(|byte| format!("{byte:02x}")).collect();
            return Err(format!("is neither PNG nor JPEG: it begins with {}", start.join(" ")));
        }
    };
    if format == ImageFormat::Jpeg && !jpeg_has_its_end(bytes) {
        return Err("is damaged, or cut: a JPEG without its end marker".to_owned());
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut bounds = Limits::default();
    bounds.max_alloc = Some(limits::PICTURE_MEMORY);
    reader.limits(bounds);
    let decoder = reader.into_decoder().map_err(|e| format!("is damaged: {}", plain(&e)))?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > limits::PICTURE_PIXELS {
        return Err(format!(
            "has {height} x {width} pixels; pictures of 1 to {} are read",
            limits::PICTURE_PIXELS
        ));
    }
    use ExtendedColorType::{Cmyk8, L16, La16, Rgb16, Rgba16};
    match decoder.original_color_type() {
        L16 | La16 | Rgb16 | Rgba16 => {
            Err("has 16 bits a channel; pictures of 8 are read; convert it".to_owned())
        }
        Cmyk8 => Err("is CMYK; grey and RGB pictures are read; convert it".to_owned()),
        _ => Ok(decoder),
    }
}

/// Whether the end marker (ff d9) stands anywhere behind the first scan's header. The decoder would fill
/// what is cut off with grey. Inside a scan ff is never followed by d9, and thumbnails lie in segments
/// before it.
fn jpeg_has_its_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        at += match marker {
            // A fill byte.
            0xff => 1,
            _ => 2 + usize::from(u16::from_be_bytes([high, low])),
        };
        if marker == 0xda {
            break;
        }
    }
    bytes.get(at..).is_some_and(|scans| scans.windows(2).any(|pair| pair == [0xff, 0xd9]))
}

/// The grey of each pixel, rounded.
fn grey(image: DynamicImage) -> image::GrayImage {
    if matches!(image, DynamicImage::ImageLuma8(_) | DynamicImage::ImageLumaA8(_)) {
        return image.into_luma8();
    }
    let rgb = image.into_rgb8();
    image::GrayImage::from_fn(rgb.width(), rgb.height(), |x, y| {
        let [r, g, b] = rgb.get_pixel(x, y).0.map(u32::from);
        image::Luma([((19_595 * r + 38_470 * g + 7_471 * b + 0x8000) >> 16) as u8])
    })
}

/// A decoder's complaint on one line, without control characters.
fn plain(error: &image::ImageError) -> String {
    error.to_string().escape_debug().to_string()
}
