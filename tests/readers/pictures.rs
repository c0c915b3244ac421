use crate::museum::{Museum, mutate, sample, survives};
use image::{DynamicImage, ExtendedColorType, ImageEncoder, ImageFormat, RgbImage};
use serde_json::{Value, json};
use std::io::Cursor;

/// A picture of one colour, as PNG or JPEG.
fn picture(format: ImageFormat, [rows, columns]: [u32; 2], color: [u8; 3]) -> Vec<u8> {
    let pixels = RgbImage::from_pixel(columns, rows, image::Rgb(color));
    let mut bytes = Cursor::new(vec![]);
    DynamicImage::ImageRgb8(pixels).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub fn png(size: [u32; 2], color: [u8; 3]) -> Vec<u8> {
    picture(ImageFormat::Png, size, color)
}

fn data() -> Value {
    json!({"format": "folder", "train": {"folder": "exhibit"}, "classes": 2})
}

fn with(pictures: &Value) -> Value {
    let mut data = data();
    data["pictures"] = pictures.clone();
    data
}

/// Two classes of 2 and 1 pictures of 3 x 4 pixels.
fn sound() -> Museum {
    let museum = Museum::new();
    museum.put("exhibit/ant/a.png", &png([3, 4], [10, 20, 30]));
    museum.put("exhibit/ant/b.PNG", &png([3, 4], [40, 50, 60]));
    museum.put("exhibit/bee/c.jpeg", &picture(ImageFormat::Jpeg, [3, 4], [200, 200, 200]));
    museum
}

#[test]
fn classes_are_folders_in_sorted_order_and_take_turns() {
    let museum = sound();
    museum.put("exhibit/.hidden/x.txt", b"");
    museum.put("exhibit/bee/.thumbs", b"");
    museum.put("exhibit/README", b"what this is");
    let set = museum.open(&data()).unwrap();
    assert_eq!((set.len(), set.sample_shape()), (3, &[3, 3, 4][..]));
    let seen = [0, 1, 2].map(|i| sample(&set, i).unwrap());
    assert_eq!(seen.each_ref().map(|(_, label)| *label), [0, 1, 0]);
    let of = |i: usize, channel: usize| (seen[i].0[channel * 12 + 11] * 255.0).round() as u8;
    assert_eq!([of(0, 0), of(0, 1), of(0, 2)], [10, 20, 30]);
    assert_eq!([of(1, 0), of(1, 1), of(1, 2)], [200, 200, 200]);
    assert_eq!([of(2, 0), of(2, 1), of(2, 2)], [40, 50, 60]);
    assert!(sample(&set, 3).is_err() && set.read(0, &mut [0.0; 35]).is_err());
    let mut limited = data();
    limited["train_limit"] = 2.into();
    let limited = museum.open(&limited).unwrap();
    assert_eq!([0, 1].map(|i| sample(&limited, i).unwrap().1), [0, 1]);
    assert_ne!(limited.fingerprint(), set.fingerprint());
}

#[test]
fn pictures_of_other_sizes_are_named_or_scaled() {
    let museum = sound();
    museum.put("exhibit/bee/d.png", &png([5, 4], [1, 2, 3]));
    let words =
        ["d.png: has 5 x 4 pixels, but the first picture has 3 x 4", "data.pictures.resize"];
    museum.refuses(&data(), 65, &words);
    let set = museum.open(&with(&json!({"resize": [2, 6], "color": "grey"}))).unwrap();
    assert_eq!((set.len(), set.sample_shape()), (4, &[1, 2, 6][..]));
    let (values, label) = sample(&set, 1).unwrap();
    assert_eq!((values, label), (vec![200.0 / 255.0; 12], 1));
    museum.refuses(
        &with(&json!({"filter": "bicubic"})),
        78,
        &["data.pictures.filter: is used with"],
    );
    museum.refuses(&with(&json!({"resize": [0, 6]})), 78, &["data.pictures.resize.0: 0 is not"]);
    museum.refuses(&with(&json!({"resize": [9000, 6]})), 78, &["at most 8192"]);
    let mut other = json!({"format": "npy", "train": {"images": "x", "labels": "y"}, "classes": 2});
    other["pictures"] = json!({});
    museum.refuses(&other, 78, &["data.pictures: is used by data.format `folder` and `tar` only"]);
}

#[test]
fn folders_that_are_not_one_per_class_are_refused() {
    let refuses = |path: &str, bytes: &[u8], code: u8, words: &[&str]| {
        let museum = sound();
        museum.put(path, bytes);
        museum.refuses(&data(), code, &[&["data.train: "], words].concat());
    };
    let some = png([3, 4], [1, 1, 1]);
    refuses(
        "exhibit/cat/1.png",
        &some,
        78,
        &["data.classes: is 2", "has 3 classes: ant, bee, cat"],
    );
    refuses("exhibit/1.png", &some, 65, &["exhibit/1.png: lies beside the folders"]);
    refuses("exhibit/ant/notes.txt", b"x", 65, &["notes.txt: is no .png, .jpg or .jpeg"]);
    refuses("exhibit/ant/more/1.png", &some, 65, &["ant/more: is no .png"]);
    refuses("exhibit/ant/folder.png/x", &some, 66, &["folder.png: it is a folder"]);
    let museum = sound();
    std::fs::remove_file(museum.path("exhibit/bee/c.jpeg")).unwrap();
    museum.refuses(&data(), 65, &["exhibit/bee: holds no pictures"]);
    std::fs::remove_dir_all(museum.path("exhibit")).unwrap();
    museum.refuses(&data(), 66, &["exhibit: no such file"]);
    std::fs::create_dir(museum.path("exhibit")).unwrap();
    museum.refuses(&data(), 65, &["holds no folders; each class has one"]);
    std::fs::remove_dir(museum.path("exhibit")).unwrap();
    museum.put("exhibit", b"");
    museum.refuses(&data(), 66, &["exhibit: it is no folder"]);
}

#[test]
fn names_and_links_that_lead_astray_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    let museum = sound();
    let ant = museum.path("exhibit/ant");
    symlink(ant.join("loop.png"), ant.join("loop.png")).unwrap();
    museum.refuses(&data(), 74, &["loop.png"]);
    std::fs::remove_file(ant.join("loop.png")).unwrap();
    symlink("/dev/zero", ant.join("zero.png")).unwrap();
    museum.refuses(&data(), 66, &["zero.png: it is a pipe or device"]);
    std::fs::remove_file(ant.join("zero.png")).unwrap();
    symlink(ant.join("absent"), ant.join("gone.png")).unwrap();
    museum.refuses(&data(), 66, &["gone.png: no such file"]);
    std::fs::remove_file(ant.join("gone.png")).unwrap();
    std::fs::write(ant.join("red\u{1b}[31m.png"), b"x").unwrap();
    let error = museum.refuses(&data(), 65, &[r"red\u{1b}[31m.png"]);
    assert!(!error.to_string().contains('\u{1b}'));
    std::fs::remove_file(ant.join("red\u{1b}[31m.png")).unwrap();
    std::fs::write(ant.join(std::ffi::OsStr::from_bytes(b"\xff.png")), b"x").unwrap();
    museum.refuses(&data(), 65, &["has a name that is not UTF-8"]);
}

#[test]
fn files_that_are_no_pictures_are_refused_when_the_folder_is_opened() {
    let gif = b"GIF89a\x01\x00\x01\x00\x00\x00\x00";
    let sixteen = {
        let image = image::ImageBuffer::<image::Luma<u16>, _>::from_pixel(4, 3, image::Luma([7]));
        let mut bytes = Cursor::new(vec![]);
        DynamicImage::ImageLuma16(image).write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    // A header that is true to its checksum: 60,000 x 60,000 pixels in a few bytes.
    let bomb = {
        let mut bytes = vec![];
        let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
        encoder.write_image(&[0; 12], 4, 3, ExtendedColorType::L8).unwrap();
        bytes[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        bytes
    };
    let jpeg = picture(ImageFormat::Jpeg, [3, 4], [9, 9, 9]);
    for (bytes, word) in [
        (&b""[..], "the file is empty"),
        (b"\x89PN", "is neither PNG nor JPEG: it begins with 89 50 4e"),
        (gif, "is neither PNG nor JPEG: it begins with 47 49 46 38"),
        (b"<svg/>", "is neither PNG nor JPEG"),
        (&sixteen, "has 16 bits a channel"),
        (&bomb, "has 60000 x 60000 pixels"),
        (&jpeg[..jpeg.len() - 2], "a JPEG without its end marker"),
        (&jpeg[..3], "a JPEG without its end marker"),
        (b"\x89PNG\r\n\x1a\n", "is damaged"),
        (&[&b"\xff\xd8\xff\xd9"[..], &[0; 20], b"\xff\xd9"].concat(), "is damaged"),
    ] {
        let museum = sound();
        museum.put("exhibit/ant/bad.png", bytes);
        museum.refuses(&data(), 65, &["data.train: ", "exhibit/ant/bad.png: ", word]);
    }
    let museum = sound();
    let file = std::fs::File::create(museum.path("exhibit/ant/bad.png")).unwrap();
    file.set_len(65 << 20).unwrap();
    museum.refuses(&data(), 65, &["has 68157440 bytes; pictures of at most 67108864"]);
}

#[test]
fn a_png_cut_anywhere_is_refused_at_the_latest_when_its_sample_is_read() {
    let whole = png([3, 4], [10, 20, 30]);
    for cut in 0..whole.len() {
        let museum = Museum::new();
        museum.put("exhibit/ant/a.png", &whole[..cut]);
        museum.put("exhibit/bee/b.png", &whole);
        let outcome = museum.open(&data()).and_then(|set| sample(&set, 0));
        // The last 12 bytes are the end mark.
        let Err(error) = outcome else {
            assert!(cut + 12 >= whole.len(), "cut at {cut} of {}", whole.len());
            continue;
        };
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains("ant/a.png: "), "{error}");
    }
}

#[test]
fn a_csv_of_labels_decides_order_and_class() {
    let museum = sound();
    let mut with = data();
    with["train"]["labels"] = "labels.csv".into();
    let labels = |text: &str| {
        museum.put("labels.csv", text.as_bytes());
        let set = museum.open(&with)?;
        Ok::<_, annulus::error::Error>(
            (0..set.len()).map(|i| sample(&set, i).unwrap().1).collect::<Vec<_>>(),
        )
    };
    let names = "file,label\nbee/c.jpeg,zebra\nant/a.png,ape\nant/b.PNG,zebra\n";
    assert_eq!(labels(names).unwrap(), [1, 0, 1]);
    let numbers = "\u{feff}label,note,file\r\n1,,ant/a.png\r\n\r\n0,\"a, b\",bee/c.jpeg\r\n";
    assert_eq!(labels(numbers).unwrap(), [1, 0]);
    for (text, code, word) in [
        ("", 65, "the file is empty"),
        ("bee/c.jpeg,zebra\n", 65, "line 1: the first row must name columns `file`, `label`"),
        ("file,label\n", 65, "exhibit: has no pictures"),
        (
            "file,label\nant/a.png,0\nant/b.PNG\n",
            65,
            "line 3: has 1 cells where the first row has 2",
        ),
        (
            "file,label\r\n\r\nant/a.png,2\r\n",
            65,
            "line 3: column `label`: `2` is not a whole number",
        ),
        ("file,label\nant/a.png,a\nx,b\ny,c\n", 78, "labels.csv has 3 classes: a, b, c"),
        ("file,label\n../a.png,0\n", 65, "line 2: column `file`: `../a.png` is not a path inside"),
        ("file,label\n/etc/passwd,0\n", 65, "is not a path inside the folder"),
        ("file,label\n,0\n", 65, "`` is not a path inside"),
        ("file,label\nant/z.png,0\n", 66, "ant/z.png: no such file"),
        ("file,label\nant/a.png,\"0\n", 65, "line 2: column `label`: holds a line break"),
    ] {
        let error = labels(text).unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn the_test_samples_have_the_classes_of_the_training_samples() {
    let museum = sound();
    museum.put("held/bee/1.png", &png([3, 4], [0, 0, 0]));
    let mut both = data();
    both["test"] = json!({"folder": "held"});
    let card = museum.card(&both).unwrap();
    let test = annulus::data::open(&card.data).unwrap().1.unwrap();
    assert_eq!((test.len(), sample(&test, 0).unwrap().1), (1, 1));
    museum.put("held/cat/1.png", &png([3, 4], [0, 0, 0]));
    museum.refuses(&both, 65, &["data.test: ", "`cat` is not one of the classes: ant, bee"]);
    std::fs::remove_dir_all(museum.path("held/cat")).unwrap();
    museum.put("held/bee/1.png", &png([3, 5], [0, 0, 0]));
    let words = ["data.test: has samples of shape [3, 3, 5], data.train of shape [3, 3, 4]"];
    museum.refuses(&both, 65, &words);
}

#[test]
fn no_mutation_makes_the_picture_reader_panic() {
    let museum = sound();
    let sound = [png([3, 4], [10, 20, 30]), picture(ImageFormat::Jpeg, [24, 17], [10, 200, 30])];
    let data = with(&json!({"resize": [3, 4]}));
    let (taken, refused) = survives(&museum, &data, 3000, |rng| {
        let mut bytes = sound[rng.next_u32() as usize % 2].clone();
        mutate(&mut bytes, 60, rng);
        museum.put("exhibit/ant/a.png", &bytes);
    });
    assert!(taken > 100 && refused > 1000, "{taken} {refused}");
}
