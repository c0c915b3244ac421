//! Damaged, incomplete, mixed-up and hostile checkpoints: refused by name, or passed over for the one
//! before; never a panic, never more memory than the files can account for.

use crate::allocations::peak_of;
use crate::fixture::{Numbers, assert_same, copy, folder, names, newest, saved, snapshot};
use annulus::checkpoint::{Found, Keep, Resume, find};
use annulus::error::Result;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tempfile::{TempDir, tempdir};

/// Places to cut and bits to flip in each file.
const PLACES: u64 = 200;

/// Checkpoints of steps 10 and 20.
fn two() -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    let dir = folder.path().join("checkpoints");
    saved(&dir, Keep { last: 5, best: false }, &[10, 20]);
    (folder, dir)
}

fn size(path: &Path) -> u64 {
    let size = |name: &String| {
        let path = path.join(name);
        if path.is_dir() { size(&path) } else { path.symlink_metadata().unwrap().len() }
    };
    names(path).iter().map(size).sum()
}

/// [`find`] with the promise on memory: at most twice the files and 64 MiB.
fn look(dir: &Path, resume: &Resume) -> Result<Option<Found>> {
    let (outcome, peak) = peak_of(|| find(dir, resume));
    let allowed = 2 * size(dir) + (64 << 20);
    assert!(peak <= allowed, "took {peak} bytes, {allowed} are allowed");
    outcome
}

/// Step 20 must be refused because of `file` with these words, and step 10 be taken; asked for by its
/// path, step 20 is error 65.
fn falls_back(dir: &Path, file: &str, words: &str) {
    let found = look(dir, &Resume::Auto).unwrap().expect("step 10");
    assert_same(&found.snapshot, &snapshot(10));
    assert_eq!(found.refused.len(), 1, "{:?}", found.refused);
    let refusal = &found.refused[0];
    assert_eq!(refusal.path, folder(dir, 20));
    assert!(refusal.reason.starts_with(&format!("{file}: ")), "{file}: {refusal}");
    assert!(refusal.reason.contains(words), "{file}: `{words}` is missing: {refusal}");
    let error = look(dir, &Resume::Path(folder(dir, 20))).unwrap_err();
    assert_eq!(error.exit_code(), 65, "{error}");
    assert!(error.to_string().contains(&refusal.to_string()), "{error}");
}

#[test]
fn every_file_cut_anywhere_and_every_flipped_bit_is_noticed() {
    let (_folder, dir) = two();
    let mut numbers = Numbers(1);
    let files = names(&folder(&dir, 20));
    assert_eq!(files.len(), 6, "{files:?}");
    for file in &files {
        let path = folder(&dir, 20).join(file);
        let whole = fs::read(&path).unwrap();
        let len = whole.len() as u64;
        for i in 0..PLACES {
            // Spread over the file, its first and last bytes among them.
            let cut = if i < 100 { i * len / 100 } else { len - 1 - (i - 100) % len };
            fs::write(&path, &whole[..cut as usize]).unwrap();
            let words = if file == "manifest.json" { "" } else { "the manifest says" };
            falls_back(&dir, file, words);
        }
        for _ in 0..PLACES {
            let mut changed = whole.clone();
            changed[numbers.below(len) as usize] ^= 1 << numbers.below(8);
            fs::write(&path, &changed).unwrap();
            let words = if file == "manifest.json" { "" } else { "damaged: its BLAKE3 is " };
            falls_back(&dir, file, words);
        }
        let longer = [&whole[..], b" "].concat();
        fs::write(&path, longer).unwrap();
        falls_back(&dir, file, "");
        fs::write(&path, whole).unwrap();
    }
    assert_same(&newest(&dir).snapshot, &snapshot(20));
}

#[test]
fn missing_renamed_and_exchanged_files_are_noticed() {
    let (_folder, dir) = two();
    for file in names(&folder(&dir, 20)) {
        let path = folder(&dir, 20).join(&file);
        let aside = dir.join("aside");
        fs::rename(&path, &aside).unwrap();
        falls_back(&dir, &file, "it is missing");
        let other = folder(&dir, 10).join(&file);
        fs::copy(&other, &path).unwrap();
        falls_back(&dir, &file, "");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        falls_back(&dir, &file, "it is not a plain file");
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink(&aside, &path).unwrap();
        falls_back(&dir, &file, "symbolic link");
        fs::remove_file(&path).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
        falls_back(&dir, &file, "it is not a plain file");
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
    let (model, best) = ("model.safetensors", "optimizer.safetensors");
    let aside = dir.join("aside");
    fs::rename(folder(&dir, 20).join(model), &aside).unwrap();
    fs::rename(folder(&dir, 20).join(best), folder(&dir, 20).join(model)).unwrap();
    fs::rename(&aside, folder(&dir, 20).join(best)).unwrap();
    let found = look(&dir, &Resume::Auto).unwrap().unwrap();
    assert_eq!((found.snapshot.step, found.refused.len()), (10, 1));
}

#[test]
fn checkpoints_that_exchanged_their_names_are_both_refused() {
    let (_folder, dir) = two();
    fs::rename(folder(&dir, 20), dir.join("aside")).unwrap();
    fs::rename(folder(&dir, 10), folder(&dir, 20)).unwrap();
    fs::rename(dir.join("aside"), folder(&dir, 10)).unwrap();
    let error = look(&dir, &Resume::Auto).unwrap_err();
    assert_eq!(error.exit_code(), 65);
    assert!(error.to_string().contains("it is of step 10, the folder of step 20"), "{error}");
    assert!(error.to_string().contains("it is of step 20, the folder of step 10"), "{error}");
}

#[test]
fn a_run_never_starts_anew_in_silence_when_its_checkpoints_are_damaged_or_gone() {
    let (_folder, dir) = two();
    for step in [10, 20] {
        fs::write(folder(&dir, step).join("manifest.json"), "{").unwrap();
    }
    let error = look(&dir, &Resume::Auto).unwrap_err();
    assert_eq!(error.exit_code(), 65);
    for part in ["step-00000010: manifest.json: line 1", "step-00000020: ", "resume `never`"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    for step in [10, 20] {
        fs::remove_dir_all(folder(&dir, step)).unwrap();
    }
    let error = look(&dir, &Resume::Auto).unwrap_err();
    assert_eq!(error.exit_code(), 65);
    assert!(error.to_string().contains("latest says that a checkpoint was written"), "{error}");
    assert!(look(&dir, &Resume::Never).unwrap().is_none());
    fs::remove_file(dir.join("latest")).unwrap();
    assert!(look(&dir, &Resume::Auto).unwrap().is_none());
    assert!(find(&dir.join("nowhere"), &Resume::Auto).unwrap().is_none());
}

#[test]
fn a_path_is_taken_as_it_is_or_refused_with_what_to_give_instead() {
    let (keep, dir) = two();
    let found = look(&dir, &Resume::Path(folder(&dir, 10))).unwrap().unwrap();
    assert_same(&found.snapshot, &snapshot(10));
    // A copy may have any name.
    copy(&folder(&dir, 10), &keep.path().join("good start"));
    assert!(look(&dir, &Resume::parse(keep.path().join("good start").to_str().unwrap())).is_ok());
    for (path, code, words) in [
        (dir.join("step-00000030"), 66, "no such file"),
        (dir.join("latest"), 66, "a checkpoint is a folder"),
        (dir.clone(), 66, "the newest is "),
        (keep.path().to_owned(), 66, "checkpoints/step-00000020"),
    ] {
        let error = look(&dir, &Resume::Path(path)).unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// Writes `bytes` as a file of step 20 and makes the manifest fit, as somebody who means harm would;
/// `edit` may change the manifest before it is sealed. After `docs/FORMATS.md`, not the program.
fn forge(dir: &Path, file: &str, bytes: &[u8], edit: impl Fn(&mut Value)) {
    let folder = folder(dir, 20);
    fs::write(folder.join(file), bytes).unwrap();
    let text = fs::read_to_string(folder.join("manifest.json")).unwrap();
    let mut manifest: Value = serde_json::from_str(&text).unwrap();
    manifest.as_object_mut().unwrap().remove("seal").expect("a seal");
    for entry in manifest["files"].as_array_mut().unwrap() {
        if entry["name"] == file {
            entry["bytes"] = json!(bytes.len());
            entry["blake3"] = json!(blake3::hash(bytes).to_hex().as_str());
        }
    }
    edit(&mut manifest);
    let text = serde_json::to_string_pretty(&manifest).unwrap();
    let text = format!("{},\n", text.strip_suffix("\n}").unwrap());
    let seal = blake3::hash(text.as_bytes()).to_hex();
    fs::write(folder.join("manifest.json"), format!("{text}  \"seal\": \"{seal}\"\n}}\n")).unwrap();
}

#[test]
fn a_forged_checkpoint_is_accepted_only_where_it_is_harmless() {
    let (_folder, dir) = two();
    let card = fs::read(folder(&dir, 20).join("card.json")).unwrap();
    forge(&dir, "card.json", &card, |_| ());
    assert_same(&newest(&dir).snapshot, &snapshot(20));
    for (key, value, words) in [
        ("version", json!(2), "format version 2, this program reads 1"),
        ("step", json!(-20), "integer `-20`"),
        ("step", json!(21), "it is of step 21"),
        ("world_size", json!(1u64 << 60), "world_size is 1152921504606846976"),
        ("score", json!("7ff8000000000000"), "score is not a number"),
        ("files", json!([]), "does not list state.json"),
        ("surprise", json!(1), "unknown field `surprise`"),
        ("program", json!("x".repeat(70_000)), "65536 is the limit"),
    ] {
        forge(&dir, "card.json", &card, |manifest| manifest[key] = value.clone());
        falls_back(&dir, "manifest.json", words);
        let (_other, fresh) = two();
        fs::copy(folder(&fresh, 20).join("manifest.json"), folder(&dir, 20).join("manifest.json"))
            .unwrap();
    }
    // The fresh one's card has the same bytes, so the manifest fits again.
    assert_same(&newest(&dir).snapshot, &snapshot(20));
    forge(&dir, "card.json", &card, |manifest| manifest["files"][0]["bytes"] = json!(1u64 << 62));
    falls_back(&dir, "best.safetensors", "the manifest says 4611686018427387904");
}

/// A safetensors file with this header.
fn tensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn files_made_to_eat_memory_are_refused_within_the_promised_bound() {
    let entry = |name: &str, shape: &str| {
        format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":[{shape}],\"data_offsets\":[0,0]}},")
    };
    let many = |n: usize| {
        let entries: String = (0..n).map(|i| entry(&format!("t{i}"), "0")).collect();
        format!("{{{}}}", entries.trim_end_matches(','))
    };
    let zeros = format!("{}0", "0,".repeat(8_000_000));
    let long = format!("{{{}}}", entry("a", &zeros).trim_end_matches(','));
    let name = "n".repeat(16_000_000);
    let named = format!("{{{}}}", entry(&name, "0").trim_end_matches(','));
    let key = format!("{{\"{name}\":0}}");
    let huge = "{\"a\":{\"dtype\":\"F32\",\"shape\":[1000000000000],\
                \"data_offsets\":[0,4000000000000]}}";
    let objects = "{\"\":0},".repeat(37_000);
    let state = format!("{{\"step\":20,\"state\":[{}0]}}", objects);
    let deep = "[".repeat(200_000);
    for (file, bytes, words) in [
        ("model.safetensors", tensors(huge, b"1234"), "the file has 4"),
        ("model.safetensors", tensors(&long, b""), "at most 8 numbers"),
        ("model.safetensors", tensors(&many(180_000), b""), "more than 100000 tensors"),
        ("model.safetensors", tensors(&named, b""), "name of 16000000 bytes"),
        ("model.safetensors", tensors(&key, b""), "its header is damaged"),
        ("model.safetensors", u64::MAX.to_le_bytes().to_vec(), "announces a header"),
        ("model.safetensors", tensors(&" ".repeat(17 << 20), b""), "announces a header"),
        ("state.json", state.into_bytes(), "missing field"),
        ("state.json", deep.into_bytes(), "nested deeper"),
        ("state.json", vec![b' '; 300 << 10], "262144 is the limit"),
        ("card.json", vec![b' '; 2 << 20], "1048576 is the limit"),
        ("card.json", vec![0xff; 9], "not UTF-8"),
    ] {
        let (_folder, dir) = two();
        forge(&dir, file, &bytes, |_| ());
        falls_back(&dir, file, words);
    }
    // As many tensors as are allowed: sound, so they are read, within the bound.
    let (_folder, dir) = two();
    forge(&dir, "model.safetensors", &tensors(&many(100_000), b""), |_| ());
    let found = look(&dir, &Resume::Auto).unwrap().unwrap();
    assert_eq!(found.snapshot.group("model").unwrap().len(), 100_000);
}

#[test]
fn a_file_of_a_terabyte_of_nothing_is_refused_by_its_size_alone() {
    let (_folder, dir) = two();
    for file in names(&folder(&dir, 20)) {
        let path = folder(&dir, 20).join(&file);
        let whole = fs::read(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        let (found, peak) = peak_of(|| find(&dir, &Resume::Auto).unwrap().unwrap());
        assert_eq!((found.snapshot.step, found.refused.len()), (10, 1), "{file}");
        assert!(found.refused[0].reason.contains("1099511627776"), "{:?}", found.refused);
        assert!(peak < 1 << 20, "{file}: {peak} bytes");
        fs::write(&path, whole).unwrap();
    }
}
