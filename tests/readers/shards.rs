use crate::museum::{Museum, mutate, sample, survives};
use crate::pictures::png;
use serde_json::{Value, json};
use tar::{EntryType, Header};

/// A member of a tar archive: header, data, zeros up to the next block.
fn member(kind: EntryType, name: &str, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_cksum();
    let mut bytes = [header.as_bytes(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub fn file(name: &str, data: &[u8]) -> Vec<u8> {
    member(EntryType::Regular, name, data)
}

/// PAX attributes of the next member.
fn pax(records: &str) -> Vec<u8> {
    member(EntryType::XHeader, "pax", records.as_bytes())
}

/// `LENGTH KEY=VALUE\n`
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let length = (1..).find(|n| n - n.to_string().len() == rest.len()).unwrap();
    format!("{length}{rest}")
}

pub fn end(members: &[Vec<u8>]) -> Vec<u8> {
    [&members.concat()[..], &[0; 1024]].concat()
}

fn data() -> Value {
    json!({"format": "tar", "train": {"files": ["exhibit.tar"]}, "classes": 3})
}

fn pixel(value: u8) -> Vec<u8> {
    png([3, 4], [value, 0, 0])
}

/// Three samples with labels 2, 0, 1.
fn sound() -> Vec<Vec<u8>> {
    vec![
        file("a/1.png", &pixel(51)),
        file("a/1.cls", b"2"),
        file("a/2.cls", b"0\n"),
        file("a/2.PNG", &pixel(102)),
        file("b/1.png", &pixel(153)),
        file("b/1.cls", b" 1 "),
    ]
}

#[track_caller]
fn refuses(archive: &[u8], words: &[&str]) {
    let museum = Museum::new();
    museum.put("exhibit.tar", archive);
    museum.refuses(&data(), 65, &[&["data.train: ", "exhibit.tar: "], words].concat());
}

/// What these members are told in place of the third and fourth of sound ones.
#[track_caller]
fn refuses_members(members: &[Vec<u8>], words: &[&str]) {
    let mut all = sound();
    all.splice(2..4, members.iter().cloned());
    refuses(&end(&all), words);
}

#[test]
fn the_files_of_a_key_are_a_sample_in_the_order_of_the_archives() {
    let museum = Museum::new();
    let mut members = sound();
    for extra in [
        file("c/notes.txt", b"of no sample"),
        file("README", b"what this is"),
        file("._1.png", b"a shadow"),
        file("a/1.txt", b"a caption"),
        file("a/1.seg.png", b"another picture"),
        member(EntryType::Directory, "a", b""),
        member(EntryType::Regular, "old/", b""),
        member(EntryType::XGlobalHeader, "pax", record("comment", "x").as_bytes()),
    ] {
        members.insert(2, extra);
    }
    museum.put("exhibit.tar", &end(&members));
    museum.put("more.tar", &end(&[file("./a//1.jpg", &pixel(204)), file("a/1.cls", b"2")]));
    let mut two = data();
    two["train"]["files"] = json!(["exhibit.tar", "more.tar"]);
    let set = museum.open(&two).unwrap();
    assert_eq!((set.len(), set.sample_shape(), set.classes()), (4, &[3, 3, 4][..], 3));
    for (i, (value, label)) in [(51, 2), (102, 0), (153, 1), (204, 2)].into_iter().enumerate() {
        let (values, seen) = sample(&set, i).unwrap();
        assert_eq!((values[0], values[12], seen), (value as f32 / 255.0, 0.0, label));
        assert_eq!(set.label(i).unwrap(), label);
    }
    assert!(sample(&set, 4).is_err() && set.read(0, &mut [0.0; 35]).is_err());
    // A limit does not even look at what is behind it.
    museum.put("more.tar", b"no archive");
    let mut limited = two.clone();
    limited["train_limit"] = 2.into();
    let limited = museum.open(&limited).unwrap();
    assert_eq!([0, 1].map(|i| sample(&limited, i).unwrap().1), [2, 0]);
    assert!(limited.len() == 2 && limited.fingerprint() != set.fingerprint());
    museum.refuses(&two, 65, &["more.tar: "]);
}

#[test]
fn labels_may_be_in_a_field_of_json() {
    let museum = Museum::new();
    let mut with = data();
    with["tar"] = json!({"label_field": "class"});
    let open = |text: &str| {
        let members = [file("1.png", &pixel(1)), file("1.json", text.as_bytes())];
        museum.put("exhibit.tar", &end(&members));
        museum.open(&with).map(|set| sample(&set, 0).unwrap().1)
    };
    assert_eq!(open(r#"{"caption": "x", "class": 2}"#).unwrap(), 2);
    assert_eq!(open(r#"{"class": "1"}"#).unwrap(), 1);
    for (text, word) in [
        (r#"{"class": 3}"#, "`3` is not a whole number from 0 to 2"),
        (r#"{"class": 1.0}"#, "`1.0` is not a whole number"),
        (r#"{"class": [1]}"#, "its field `class` (data.tar.label_field) is no number"),
        (r#"{"label": 1}"#, "has no field `class` (data.tar.label_field)"),
        ("[1]", "has no field `class`"),
        ("{", "is no JSON that can be read"),
        (&"[".repeat(10_000), "is no JSON that can be read: recursion limit"),
        ("", "is no JSON that can be read"),
    ] {
        let error = open(text).unwrap_err();
        assert!(error.exit_code() == 65 && error.to_string().contains(word), "{error}");
        assert!(error.to_string().contains("`1.json` (byte 1024): "), "{error}");
    }
    museum.put("exhibit.tar", &end(&sound()));
    museum.refuses(&with, 65, &["`a/1.png` (byte 0): has no label: `a/1.json` is missing"]);
}

#[test]
fn members_that_lead_out_of_the_archive_or_are_no_files_are_refused() {
    for name in ["../x.png", "a/../x.png", "/etc/x.png", ".."] {
        let what = format!("byte 2048: the name `{name}` is not a path inside the archive");
        refuses_members(&[file(name, b"x")], &[&what]);
    }
    refuses_members(&[file("", b"x")], &["the name `` is not a path"]);
    refuses_members(
        &[pax(&record("path", "../x.png")), file("x.png", b"")],
        &["byte 3072: ", ".."],
    );
    let link = "is a link; pack the file itself";
    for (kind, word) in [
        (EntryType::Symlink, link),
        (EntryType::Link, link),
        (EntryType::GNUSparse, "is a sparse file; pack it without --sparse"),
        (EntryType::Fifo, "is neither file nor folder (type `6`)"),
        (EntryType::Char, "is neither file nor folder (type `3`)"),
        (EntryType::new(b'V'), "is neither file nor folder (type `V`)"),
    ] {
        refuses_members(&[member(kind, "x.png", b"")], &["`x.png` (byte 2048): ", word]);
    }
    refuses_members(&[member(EntryType::Directory, "x", b"data")], &["(type `5`)"]);
    let mut bad = file("red\u{1b}[31m.cls", b"9");
    refuses_members(&[file("red\u{1b}[31m.png", &pixel(0)), bad], &[r"`red\u{1b}[31m.cls` (byte"]);
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..5].copy_from_slice(b"\xff.png");
    header.set_size(0);
    header.set_cksum();
    bad = header.as_bytes().to_vec();
    refuses_members(&[bad], &[r"the name `\xff.png` is not UTF-8"]);
}

#[test]
fn attributes_of_both_kinds_are_read_and_doubtful_ones_refused() {
    let museum = Museum::new();
    let long = |suffix: &str| format!("{}.{suffix}", "k".repeat(300));
    let gnu =
        member(EntryType::GNULongName, "././@LongLink", format!("{}\0", long("png")).as_bytes());
    let attributes =
        record("comment", "one\ntwo") + &record("path", &long("cls")) + &record("size", "1");
    let members = [gnu, file("short", &pixel(51)), pax(&attributes), file("short", b"2")];
    museum.put("exhibit.tar", &end(&members));
    assert_eq!(sample(&museum.open(&data()).unwrap(), 0).unwrap().1, 2);
    let global = |key: &str| member(EntryType::XGlobalHeader, "pax", record(key, "7").as_bytes());
    for (records, word) in [
        (pax(&record("size", "2")), "its PAX size is another than its header's"),
        (pax(&record("size", "-1")), "its `size` is no number"),
        (pax(&(record("path", "a.png") + &record("path", "b.png"))), "a second name"),
        (pax(&record("GNU.sparse.major", "1")), "is a sparse file"),
        (pax("12 path=a\n"), "its PAX records are damaged"),
        (pax("0 path=a\n"), "its PAX records are damaged"),
        (pax("99999999999999999999 path=a\n"), "its PAX records are damaged"),
        (pax("9 path.a\n"), "its PAX records are damaged"),
        (global("path"), "gives all members one `path`"),
        (global("GNU.sparse.name"), "gives all members one `GNU.sparse.name`"),
        (pax(&record("comment", &"x".repeat(70_000))), "bytes of attributes; at most 65536"),
        (member(EntryType::GNULongName, "x", b""), "the name `` is not a path"),
        (member(EntryType::GNULongLink, "x", b"y"), "is a link"),
    ] {
        refuses_members(&[records, file("x.png", b"x")], &[word]);
    }
    let last = [sound().concat(), pax(&record("path", "x"))];
    refuses(&end(&last), &["the member that the last attributes are of is missing"]);
}

#[test]
fn an_archive_cut_at_any_block_or_inside_one_is_refused() {
    let whole = end(&sound());
    for cut in (0..whole.len()).filter(|cut| [0, 1, 511].contains(&(cut % 512))) {
        let word = if cut == 0 { "the file is empty" } else { "" };
        refuses(&whole[..cut], &[word]);
    }
    refuses(
        &whole[..whole.len() - 1024],
        &["byte 6144: the archive ends (it has 6144 bytes) without"],
    );
    refuses(&whole[..whole.len() - 1], &["was it cut?"]);
    refuses(&whole[..2600], &["byte 2600: ", "was it cut?"]);
    refuses(&whole[..520], &["byte 0: truncated: the header claims", "the file has 8 more"]);
    refuses(&[&whole[..], &whole].concat(), &["byte 7168: something follows the end"]);
    let mut museum = Museum::new();
    museum.put("exhibit.tar", &[&whole[..], &[0; 9216]].concat());
    museum.open(&data()).unwrap();
    // And one that is cut after it was opened.
    museum = Museum::new();
    let path = museum.put("exhibit.tar", &whole);
    let set = museum.open(&data()).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_len(1000).unwrap();
    let error = sample(&set, 2).unwrap_err();
    assert!(error.exit_code() == 74 && error.to_string().contains("was it cut since?"), "{error}");
}

#[test]
fn headers_that_lie_are_refused_before_memory_is_asked_for() {
    for size in [u64::MAX, 1 << 62, 1 << 33, 10_000] {
        let mut header = Header::new_gnu();
        header.set_path("a/2.png").unwrap();
        header.set_size(size);
        header.set_cksum();
        let words = ["byte 2048: truncated: the header claims ", " bytes of data, the file has"];
        refuses_members(&[header.as_bytes().to_vec()], &words);
    }
    let mut text = file("a/2.png", b"");
    text[124..135].copy_from_slice(b"a number..!");
    let header = Header::from_byte_slice(&text[..512]);
    let mut header = header.clone();
    header.set_cksum();
    refuses_members(&[header.as_bytes().to_vec()], &["the header's size is no number"]);
    let mut flipped = file("a/2.png", b"");
    flipped[3] ^= 1;
    refuses_members(
        &[flipped],
        &["byte 2048: is no header of a tar archive (its checksum is wrong)"],
    );
    refuses(&pixel(0).repeat(20), &["byte 0: is no header of a tar archive", "is it one?"]);
    refuses(&[0x1f, 0x8b, 8].repeat(400), &["is packed with gzip; unpack it first"]);
}

#[test]
fn samples_that_are_not_whole_are_refused() {
    let [picture, label] = [file("x.png", &pixel(0)), file("x.cls", b"0")];
    for (members, word) in [
        (vec![picture.clone()], "`x.png` (byte 2048): has no label: `x.cls` is missing"),
        (vec![label.clone()], "`x.cls` (byte 2048): has no picture"),
        (
            vec![picture.clone(), picture.clone(), label.clone()],
            "`x.png` (byte 3072): its name is there twice",
        ),
        (vec![label.clone(), picture.clone(), file("x.CLS", b"0")], "its name is there twice"),
        (vec![label.clone(), picture.clone(), file("x.jpg", b"")], "another picture, `x.png`"),
        (vec![file("a/1.cls", b"0")], "`a/1.cls` (byte 2048): its name is there twice"),
        (
            vec![picture.clone(), label, file("a/1.jpg", b"")],
            "`a/1.jpg` (byte 4096): other samples lie",
        ),
        (
            vec![picture.clone(), file("x.cls", b"")],
            "`x.cls` (byte 3072): `` is not a whole number",
        ),
        (vec![picture.clone(), file("x.cls", b"3")], "`3` is not a whole number from 0 to 2"),
        (vec![picture.clone(), file("x.cls", b"cat")], "`cat` is not a whole number"),
        (vec![picture.clone(), file("x.cls", b"\xff")], "is not text in UTF-8"),
        (vec![picture.clone(), file("x.cls", &[b'0'; 41])], "has 41 bytes of text"),
        (vec![picture, file("x.cls", &vec![b' '; (1 << 20) + 1])], "labels of at most 1048576"),
        (vec![file("x.png", b""), file("x.cls", b"0")], "`x.png` (byte 2048): the file is empty"),
        (vec![file("x.png", b"GIF8"), file("x.cls", b"0")], "is neither PNG nor JPEG"),
        (
            vec![file("x.png", &png([5, 4], [0; 3])), file("x.cls", b"0")],
            "has 5 x 4 pixels, but the first picture has 3 x 4",
        ),
    ] {
        refuses_members(&members, &[word]);
    }
    let many: Vec<_> = (0..70).map(|i| file(&format!("x.{i}"), b"")).collect();
    refuses_members(&many, &["its sample has more than 64 files"]);
    refuses(&[0; 1024], &["holds no samples: none of its files is a .png, .jpg, .jpeg or .cls"]);
    refuses(&end(&[file("README.md", b"x")]), &["holds no samples"]);
    let museum = Museum::new();
    let file = std::fs::File::create(museum.put("exhibit.tar", b"")).unwrap();
    let mut header = Header::new_ustar();
    header.set_path("x.png").unwrap();
    header.set_size(65 << 20);
    header.set_cksum();
    std::os::unix::fs::FileExt::write_all_at(&file, header.as_bytes(), 0).unwrap();
    let rest = end(&[self::file("x.cls", b"0")]);
    std::os::unix::fs::FileExt::write_all_at(&file, &rest, 512 + (65 << 20)).unwrap();
    museum.refuses(&data(), 65, &["has 68157440 bytes; pictures of at most 67108864 are read"]);
}

#[test]
fn the_card_is_told_what_the_format_takes() {
    let museum = Museum::new();
    let mut other = data();
    other["train"] = json!({"folder": "x"});
    let words =
        ["data.train.files: is missing", "data.train.folder: is not used by data.format `tar`"];
    museum.refuses(&other, 78, &words);
    let mut other = json!({"format": "folder", "train": {"folder": "x"}, "classes": 2});
    other["tar"] = json!({});
    museum.refuses(&other, 78, &["data.tar: is used by data.format `tar` only"]);
    museum.refuses(&data(), 66, &["exhibit.tar: no such file"]);
}

#[test]
fn no_mutation_makes_the_tar_reader_panic() {
    let museum = Museum::new();
    let mut members = sound();
    members.insert(2, pax(&record("path", "a/2.cls")));
    let whole = end(&members);
    museum.put("exhibit.tar", &whole);
    let (taken, refused) = survives(&museum, &data(), 4000, |rng| {
        let mut bytes = whole.clone();
        mutate(&mut bytes, 520, rng);
        // Half of them with sound checksums, so that what they cover is looked at.
        if rng.next_u32().is_multiple_of(2) {
            for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
                let mut header = Header::from_byte_slice(block).clone();
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
        museum.put("exhibit.tar", &bytes);
    });
    assert!(taken > 100 && refused > 1000, "{taken} {refused}");
}
