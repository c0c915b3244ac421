//! The museum of bad data files (`tests/attacks/README.md`): each is refused with the right exit
//! code and a message that names the file and the place; none makes a reader panic.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use annulus::config::Normalize;
use annulus::data::{Dataset, ImageSet, idx};
use annulus::error::Error;
use annulus::util::rng::{Purpose, Rng};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

struct Museum(tempfile::TempDir);

impl Museum {
    fn new() -> Museum {
        Museum(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// The data error that a file of these bytes causes; it must name the file and say `expected`.
    #[track_caller]
    fn refuses(&self, bytes: &[u8], expected: &str) -> Error {
        let path = self.put("exhibit", bytes);
        let start = Instant::now();
        let error = idx::read(&path).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(2));
        assert_eq!(error.exit_code(), 65, "{error}");
        let message = error.to_string();
        assert!(message.contains("exhibit") && message.contains(expected), "{message}");
        error
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A sound file of 5 images of 3 x 4 pixels.
fn sound() -> Vec<u8> {
    idx::encode(&[5, 3, 4], &(0..60).collect::<Vec<u8>>()).unwrap()
}

/// A header of these sizes with these bytes behind it, true or not.
fn header(kind: u8, sizes: &[u32], rest: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, kind, sizes.len() as u8];
    out.extend(sizes.iter().flat_map(|size| size.to_be_bytes()));
    out.extend(rest);
    out
}

#[test]
fn sound_files_are_read_plain_and_gzip_whatever_their_names() {
    let museum = Museum::new();
    let two_members = [gzip(&sound()[..20]), gzip(&sound()[20..])].concat();
    for bytes in [sound(), gzip(&sound()), two_members] {
        let read = idx::read(&museum.put("data.txt", &bytes)).unwrap();
        assert_eq!(read.dims, [5, 3, 4]);
        assert_eq!(read.bytes, (0..60).collect::<Vec<u8>>());
    }
    assert!(idx::encode(&[5, 3], &[0; 16]).is_err());
}

#[test]
fn what_is_no_file_is_no_input() {
    let museum = Museum::new();
    for (path, expected) in
        [(museum.path("absent"), "no such file"), (museum.path("."), "a folder")]
    {
        let error = idx::read(&path).unwrap_err();
        assert_eq!(error.exit_code(), 66);
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(idx::read(Path::new("/dev/zero")).unwrap_err().exit_code(), 66);
}

#[test]
fn an_empty_file_is_called_empty() {
    Museum::new().refuses(b"", "the file is empty");
}

#[test]
fn a_header_cut_at_any_byte_names_the_field_and_the_byte() {
    let museum = Museum::new();
    for cut in 1..16 {
        let field = match cut {
            0..4 => "the magic number (bytes 0..4)".to_owned(),
            _ => format!("the size of dimension {} (bytes {}..", cut / 4 - 1, cut / 4 * 4),
        };
        let expected = format!("the data ends at byte {cut}, inside {field}");
        museum.refuses(&sound()[..cut], &expected);
        museum.refuses(&gzip(&sound()[..cut]), &expected);
    }
}

#[test]
fn what_is_not_idx_of_unsigned_bytes_is_named() {
    let museum = Museum::new();
    museum.refuses(b"\x89PNG\r\n\x1a\n", "bytes 0..2 are 89 50");
    museum.refuses(&[3, 8, 0, 0, 0, 0, 0, 5], "byte order may be reversed");
    for (kind, name) in [
        (0x09, "signed"),
        (0x0b, "16-bit"),
        (0x0c, "32-bit int"),
        (0x0d, "32-bit fl"),
        (7, "no IDX"),
    ] {
        museum.refuses(&header(kind, &[1], &[0]), name);
    }
    museum.refuses(&header(8, &[], &[]), "byte 3, the number of dimensions, is 0");
    museum.refuses(&header(8, &[1; 5], &[0]), "byte 3, the number of dimensions, is 5");
    museum.refuses(&[0, 0, 8, 255, 0, 0], "is 255");
}

#[test]
fn sizes_whose_product_overflows_are_refused() {
    let museum = Museum::new();
    let huge = header(8, &[u32::MAX; 4], &[0; 9]);
    museum.refuses(&huge, "4294967295 x 4294967295 x 4294967295 x 4294967295 values, more than");
    museum.refuses(&gzip(&huge), "more than");
    // 2^64 - 2^33 + 1 values fit 64 bits and are still refused before memory is asked for.
    museum.refuses(&header(8, &[u32::MAX; 2], &[0; 9]), "bytes are missing");
    museum.refuses(&gzip(&header(8, &[u32::MAX; 2], &[0; 9])), "may unpack to");
}

#[test]
fn a_header_that_lies_is_found_out_in_both_directions() {
    let museum = Museum::new();
    let sound = sound();
    museum.refuses(&sound[..70], "truncated, 6 bytes are missing: the header declares 5 x 3 x 4");
    museum.refuses(&[&sound[..], &[1, 2]].concat(), "2 bytes too long");
    museum.refuses(&gzip(&sound[..70]), "the data ends after 54 of them");
    museum.refuses(&gzip(&[&sound[..], &[1]].concat()), "data goes on after byte 76");
}

#[test]
fn a_gzip_file_cut_anywhere_is_called_truncated() {
    let museum = Museum::new();
    let mut rng = Rng::new(1, Purpose::Synthetic, 0, 0, 0);
    let noise: Vec<u8> = (0..3000).map(|_| rng.next_u32() as u8).collect();
    let packed = gzip(&idx::encode(&[3000], &noise).unwrap());
    for cut in (2..packed.len()).step_by(97).chain(packed.len() - 9..packed.len()) {
        museum.refuses(&packed[..cut], "truncated");
    }
}

#[test]
fn damaged_gzip_data_is_called_damaged() {
    let museum = Museum::new();
    museum.refuses(&[&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0xff; 90]].concat(), "damaged");
    museum.refuses(&[&[0x1f, 0x8b][..], &[7; 90]].concat(), "damaged");
    let mut packed = gzip(&sound());
    let checksum = packed.len() - 8;
    packed[checksum] ^= 1;
    museum.refuses(&packed, "damaged");
    museum.refuses(&[gzip(&sound()), b"garbage at the end".to_vec()].concat(), "damaged");
}

#[test]
fn a_small_file_cannot_claim_a_big_one() {
    let museum = Museum::new();
    // The header lies: 4 GB out of 3 kB.
    let error = museum.refuses(&gzip(&header(8, &[4_000_000_000], &[0; 1 << 20])), "may unpack to");
    assert!(error.to_string().contains("gunzip"), "{error}");
    // The header is modest and the data goes on and on: reading stops one byte after the claim.
    museum.refuses(&gzip(&header(8, &[1000], &vec![0; 64 << 20])), "data goes on after byte 1008");
    // The header says the truth, 64 MB out of 65 kB.
    let bomb = gzip(&header(8, &[64 << 20], &vec![0; 64 << 20]));
    assert!(bomb.len() < 100_000);
    museum.refuses(&bomb, "may unpack to 16777216");
    // Up to 16 MiB the ratio does not matter: blank images are no attack.
    let blank = museum.put("blank", &gzip(&header(8, &[10 << 20], &vec![0; 10 << 20])));
    assert_eq!(idx::read(&blank).unwrap().bytes.len(), 10 << 20);
}

/// The outcome of opening a pair of files with 3 classes.
fn open(
    museum: &Museum,
    images: &[u8],
    labels: &[u8],
    limit: Option<usize>,
) -> annulus::error::Result<ImageSet> {
    let paths = [museum.put("images", images), museum.put("labels", labels)];
    let paths = paths.each_ref().map(PathBuf::as_path);
    ImageSet::open(paths, 3, Normalize { mean: 0.5, std: 0.25 }, limit)
}

#[test]
fn files_that_are_no_pair_of_images_and_labels_are_refused() {
    let museum = Museum::new();
    let labels = |labels: &[u8]| idx::encode(&[labels.len()], labels).unwrap();
    let five = labels(&[0, 1, 2, 0, 1]);
    let none = idx::encode(&[0, 3, 4], &[]).unwrap();
    let flat = idx::encode(&[5, 0, 4], &[]).unwrap();
    for (images, labels, expected) in [
        (sound(), labels(&[0; 4]), "labels: has 4 labels, but"),
        (sound(), labels(&[0, 1, 3, 9, 0]), "labels: label 3 of sample 2 (byte 10) is not below"),
        (five.clone(), sound(), "images: has 1 dimension(s)"),
        (sound(), sound(), "labels: has 3 dimensions; labels have 1"),
        (none, labels(&[]), "images: holds zero images"),
        (flat, five.clone(), "images: its images have no pixels"),
    ] {
        let error = open(&museum, &images, &labels, None).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_sound_pair_gives_normalised_samples_and_a_fingerprint_of_what_is_used() {
    let museum = Museum::new();
    let labels = |last| idx::encode(&[5], &[0, 1, 2, 0, last]).unwrap();
    let set = open(&museum, &sound(), &labels(1), None).unwrap();
    assert_eq!((set.len(), set.sample_shape(), set.classes()), (5, &[1, 3, 4][..], 3));
    let mut out = [0.0; 12];
    assert_eq!(set.read(2, &mut out).unwrap(), 2);
    assert_eq!(out[3], (27.0 / 255.0 - 0.5) / 0.25);
    assert!(set.read(5, &mut out).is_err() && set.read(0, &mut out[1..]).is_err());
    let other = open(&museum, &sound(), &labels(2), None).unwrap();
    assert_ne!(set.fingerprint(), other.fingerprint());
    let [set, other] = [1, 2].map(|l| open(&museum, &sound(), &labels(l), Some(4)).unwrap());
    assert_eq!((set.len(), set.fingerprint()), (4, other.fingerprint()));
    // A limit above what is there means all of it.
    assert_eq!(open(&museum, &sound(), &labels(1), Some(99)).unwrap().len(), 5);
    let channels = idx::encode(&[5, 3, 2, 2], &[9; 60]).unwrap();
    assert_eq!(open(&museum, &channels, &labels(1), None).unwrap().sample_shape(), [3, 2, 2]);
}

#[test]
fn no_mutation_of_a_sound_file_makes_the_reader_panic() {
    let museum = Museum::new();
    let sources = [sound(), gzip(&sound())];
    for case in 0..2000u64 {
        let mut rng = Rng::new(2026, Purpose::Synthetic, 0, 0, case);
        let mut bytes = sources[case as usize % 2].clone();
        for _ in 0..1 + rng.next_u32() % 3 {
            let at = rng.next_u32() as usize % bytes.len();
            // Half of the changes hit the header, where they matter most.
            let at = if rng.next_u32().is_multiple_of(2) { at } else { at % 16 };
            match rng.next_u32() % 5 {
                0 => bytes[at] ^= 1 << (rng.next_u32() % 8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.next_u32() as usize % 5],
                2 => bytes.truncate(at.max(1)),
                3 => bytes.insert(at, rng.next_u32() as u8),
                _ => bytes.extend_from_within(at..),
            }
        }
        let path = museum.put("mutant", &bytes);
        match idx::read(&path) {
            Ok(read) => assert_eq!(read.dims.iter().product::<usize>(), read.bytes.len()),
            Err(error) => assert!(error.to_string().contains("mutant"), "{error}"),
        }
    }
}

#[test]
fn the_shipped_mnist_is_read_whole() {
    let card = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/lenet-mnist.json");
    let card = annulus::config::Card::load(&card, &[]).unwrap();
    let (train, test) = annulus::data::open(&card.data).unwrap();
    assert_eq!((train.len(), train.sample_shape()), (60_000, &[1, 28, 28][..]));
    assert_eq!(test.unwrap().len(), 10_000);
    let (mut sum, mut squares) = (0.0, 0.0);
    let mut image = vec![0.0; 784];
    for i in 0..train.len() {
        assert!(train.read(i, &mut image).unwrap() < 10);
        sum += image.iter().map(|&x| f64::from(x)).sum::<f64>();
        squares += image.iter().map(|&x| f64::from(x * x)).sum::<f64>();
    }
    let n = 60_000.0 * 784.0;
    assert!((sum / n).abs() < 1e-3 && (squares / n - 1.0).abs() < 1e-2, "mean {}", sum / n);
}
