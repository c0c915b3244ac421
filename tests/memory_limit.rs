//! Data larger than memory is trained on. A test program of its own: others look for processes that are left.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Mpi, metrics};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// KiB of private memory that a process may take, stacks and all.
const LIMIT: u64 = 192 << 10;

/// Bytes of each data set: four times that.
const SIZE: u64 = 4 * 1024 * LIMIT;

/// A file with `size` zeros after its start, which take no room on the disk.
fn sparse(path: &Path, start: &[u8], size: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(start).unwrap();
    file.set_len(start.len() as u64 + size).unwrap();
}

/// Trains on this data set within the limit.
fn train(folder: &Path, data: &Value, model: &Value, limit: u64) -> (bool, String) {
    let train = json!({"global_batch": 64, "max_steps": 20, "probe": false});
    let card = json!({"data": data, "model": model, "train": train});
    let (file, out) = (folder.join("card.json"), folder.join("run"));
    std::fs::write(&file, card.to_string()).unwrap();
    let ended = Command::new("bash")
        .args([
            "-c",
            "ulimit -d \"$1\" && exec \"$2\" train \"$3\" --out \"$4\" --resume never",
            "-",
        ])
        .arg(limit.to_string())
        .args([&Mpi::Open.binary(), &file, &out])
        .output()
        .unwrap();
    if ended.status.success() {
        assert_eq!(metrics(&out, "summary").len(), 1);
    }
    (ended.status.success(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

/// The header of an npy file of bytes.
fn npy(shape: &str) -> Vec<u8> {
    let text = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape}), }}");
    let text = format!("{text:<117}\n");
    [b"\x93NUMPY\x01\x00\x76\x00", text.as_bytes()].concat()
}

#[test]
fn data_four_times_larger_than_the_memory_allowed_is_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let rows = SIZE / 1024;
    sparse(&path("x.npy"), &npy(&format!("{rows}, 1024")), SIZE);
    sparse(&path("y.npy"), &npy(&format!("{rows},")), rows);
    let header = json!({
        "x": {"dtype": "U8", "shape": [rows, 1024], "data_offsets": [0, SIZE]},
        "y": {"dtype": "U8", "shape": [rows], "data_offsets": [SIZE, SIZE + rows]},
    });
    let header = header.to_string();
    let start = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    sparse(&path("xy.safetensors"), &start, SIZE + rows);
    sparse(&path("text"), b"", SIZE);
    let mlp = json!({"kind": "mlp", "hidden": [32]});
    let gpt = json!({"kind": "gpt", "width": 16, "layers": 1, "heads": 2});
    let text = json!({"context": 64});
    for (data, model) in [
        (
            json!({"format": "npy", "train": {"images": "x.npy", "labels": "y.npy"}, "classes": 2}),
            &mlp,
        ),
        (
            json!({"format": "safetensors", "train": {"files": ["xy.safetensors"]}, "classes": 2}),
            &mlp,
        ),
        (
            json!({"format": "text", "train": {"files": ["text"]}, "classes": 256, "text": text}),
            &gpt,
        ),
    ] {
        let (trained, said) = train(folder.path(), &data, model, LIMIT);
        assert!(trained, "{data}\n{said}");
    }
    // The limit is one: what stays in memory by its nature does not fit it.
    let idx = [&[0, 0, 8, 2][..], &(rows as u32).to_be_bytes(), &1024u32.to_be_bytes()].concat();
    sparse(&path("x.idx"), &idx, SIZE);
    sparse(&path("y.idx"), &[&[0, 0, 8, 1][..], &(rows as u32).to_be_bytes()].concat(), rows);
    let idx =
        json!({"format": "idx", "train": {"images": "x.idx", "labels": "y.idx"}, "classes": 2});
    let (trained, said) = train(folder.path(), &idx, &mlp, LIMIT);
    assert!(!trained && said.contains("no memory for"), "the limit limits nothing: {said}");
}
