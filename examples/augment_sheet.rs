//! A picture of what each transform does to three MNIST digits, here in colour, in four epochs.
//!
//!     cargo run --release --example augment_sheet -- [FILE.png]
#![allow(clippy::unwrap_used)]

use annulus::config::{Card, Normalize, Transform};
use annulus::data::augment::Worker;
use annulus::data::{self, Augment, Batch, Dataset, Draw, Sampler, Sampling, SharedDataset};
use annulus::error::Result;
use std::path::Path;

const ROWS: [(&str, &str); 11] = [
    ("plain", "[]"),
    ("shift", r#"[{"kind": "shift", "pixels": 4}]"#),
    ("crop", r#"[{"kind": "crop", "pixels": 4}]"#),
    ("flip", r#"[{"kind": "flip"}]"#),
    ("upend", r#"[{"kind": "flip", "axis": "vertical"}]"#),
    ("rotate", r#"[{"kind": "rotate", "degrees": 30}]"#),
    ("elastic", r#"[{"kind": "elastic"}]"#),
    ("jitter", r#"[{"kind": "jitter", "brightness": 0.5, "contrast": 0.5, "saturation": 0.8}]"#),
    ("erase", r#"[{"kind": "erase", "probability": 1, "fill": 1}]"#),
    ("mixup", r#"[{"kind": "mixup", "alpha": 1}]"#),
    ("cutmix", r#"[{"kind": "cutmix"}]"#),
];

/// The first 0, 1 and 2 of the training images, and epochs to show.
const DIGITS: [u64; 3] = [1, 3, 5];
const EPOCHS: u64 = 4;
/// Pixels of an image on the sheet, of the space between two, of the column of names.
const TILE: usize = 56;
const GAP: usize = 3;
const NAMES: usize = 64;

/// MNIST on coloured ground: three channels between 0 and 1.
struct Tinted(SharedDataset);

const GROUND: [[f32; 3]; 3] = [[0.15, 0.3, 0.5], [0.45, 0.2, 0.25], [0.2, 0.4, 0.25]];
const INK: [[f32; 3]; 3] = [[1.0, 0.85, 0.4], [0.95, 0.9, 0.85], [0.9, 0.95, 0.6]];

impl Dataset for Tinted {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn sample_shape(&self) -> &[usize] {
        &[3, 28, 28]
    }

    fn classes(&self) -> usize {
        self.0.classes()
    }

    fn read(&self, index: usize, out: &mut [f32]) -> Result<u32> {
        let mut grey = [0.0; 784];
        let label = self.0.read(index, &mut grey)?;
        let tint = label as usize % 3;
        for (c, channel) in out.chunks_exact_mut(784).enumerate() {
            for (value, ink) in channel.iter_mut().zip(grey) {
                *value = GROUND[tint][c] + (INK[tint][c] - GROUND[tint][c]) * ink;
            }
        }
        Ok(label)
    }

    fn fingerprint(&self) -> String {
        self.0.fingerprint()
    }
}

/// An RGB picture.
struct Sheet {
    width: usize,
    height: usize,
    bytes: Vec<u8>,
}

impl Sheet {
    fn set(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        self.bytes[3 * (y * self.width + x)..][..3].copy_from_slice(&colour);
    }

    /// Draws an image of 3 × 28 × 28, twice as large.
    fn image(&mut self, x: usize, y: usize, image: &[f32]) {
        for row in 0..TILE {
            for column in 0..TILE {
                let pixel = row / 2 * 28 + column / 2;
                let value = |channel: usize| (image[channel * 784 + pixel] * 255.0).round() as u8;
                self.set(x + column, y + row, [value(0), value(1), value(2)]);
            }
        }
    }

    fn word(&mut self, x: usize, y: usize, word: &str) {
        for (i, letter) in word.bytes().enumerate() {
            let glyph = FONT[usize::from(letter - b'a')];
            for (row, column) in (0..10).flat_map(|row| (0..6).map(move |column| (row, column))) {
                if glyph >> (14 - (row / 2 * 3 + column / 2)) & 1 == 1 {
                    self.set(x + 8 * i + column, y + row, [40, 40, 40]);
                }
            }
        }
    }
}

/// a to z, 3 × 5 dots each, from the upper left.
#[rustfmt::skip]
const FONT: [u16; 26] = [
    0b010_101_111_101_101, 0b110_101_110_101_110, 0b011_100_100_100_011, 0b110_101_101_101_110,
    0b111_100_110_100_111, 0b111_100_110_100_100, 0b011_100_101_101_011, 0b101_101_111_101_101,
    0b111_010_010_010_111, 0b001_001_001_101_010, 0b101_101_110_101_101, 0b100_100_100_100_111,
    0b101_111_111_101_101, 0b110_101_101_101_101, 0b010_101_101_101_010, 0b110_101_110_100_100,
    0b010_101_101_110_011, 0b110_101_110_101_101, 0b011_100_010_001_110, 0b111_010_010_010_010,
    0b101_101_101_101_111, 0b101_101_101_010_010, 0b101_101_111_111_101, 0b101_101_010_101_101,
    0b101_101_010_010_010, 0b111_001_010_100_111,
];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = std::env::args().nth(1).map_or(root.join("docs/images/augment.png"), Into::into);
    let plain = ["data.normalize={}".to_owned()];
    let card = Card::load(&root.join("configs/lenet-mnist.json"), &plain).unwrap();
    let digits = Tinted(data::open(&card.data).unwrap().0);
    let sampling = Sampling::default();
    let sampler = Sampler::new(digits.len() as u64, 1, card.seed);

    let columns = DIGITS.len() * EPOCHS as usize;
    let (width, height) =
        (NAMES + columns * (TILE + GAP) + 4 * GAP, ROWS.len() * (TILE + GAP) + GAP);
    let mut sheet = Sheet { width, height, bytes: vec![255; 3 * width * height] };
    for (row, (name, list)) in ROWS.iter().enumerate() {
        let y = GAP + row * (TILE + GAP);
        sheet.word(2 * GAP, y + TILE / 2 - 5, name);
        let list: Vec<Transform> = serde_json::from_str(list).unwrap();
        let augment = Augment::new(&list, Normalize::default(), 1, digits.sample_shape()).unwrap();
        let mut worker = Worker::new(&augment);
        for (i, &digit) in DIGITS.iter().enumerate() {
            for epoch in 0..EPOCHS {
                let mut batch = Batch { epoch, ..Batch::default() };
                batch.fill(&digits, std::iter::once(Draw::of(digit))).unwrap();
                worker.change(&mut batch, &digits, &sampling.draws(&sampler, epoch)).unwrap();
                let column = i * EPOCHS as usize + epoch as usize;
                sheet.image(NAMES + column * (TILE + GAP) + i * 2 * GAP, y, &batch.images);
            }
        }
    }
    write(&out, &sheet);
    println!("{}", out.display());
}

fn write(path: &Path, sheet: &Sheet) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(file, sheet.width as u32, sheet.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    encoder.write_header().unwrap().write_image_data(&sheet.bytes).unwrap();
}
