//! The floors hold: a file uses its own folder and lower floors, never a higher floor or a
//! neighbour. So each part can be read, tested and replaced with only what lies below it in mind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module with its floor and the neighbours on the same floor that it may stand on.
const FLOORS: [(&str, u32, &[&str]); 14] = [
    ("cli", 4, &[]),
    ("train", 3, &[]),
    ("checkpoint", 2, &[]),
    ("report", 2, &[]),
    ("serve", 2, &[]),
    ("collective", 1, &["comm"]),
    ("comm", 1, &[]),
    ("data", 1, &[]),
    ("model", 1, &["nn"]),
    ("nn", 1, &[]),
    ("optim", 1, &[]),
    ("config", 0, &["error", "util"]),
    ("error", 0, &[]),
    ("util", 0, &["error"]),
];

fn floor(module: &str) -> Option<(u32, &'static [&'static str])> {
    FLOORS.iter().find(|(name, ..)| *name == module).map(|&(_, floor, beside)| (floor, beside))
}

fn sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found.sort();
    found
}

/// The top module that a source file belongs to; `None` for lib.rs and main.rs.
fn module_of(path: &Path) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let first = path.strip_prefix(root).unwrap().components().next().unwrap();
    let name = first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
    (name != "lib" && name != "main").then_some(name)
}

/// The top modules of this crate that a source text names, as `crate::x` or inside `crate::{x, …}`.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(group) => top_level_names(group),
            None => vec![rest],
        };
        for name in names {
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            found.insert(name[..end].to_owned());
        }
    }
    found
}

/// The items of a braced import list, up to its closing brace, nested lists skipped.
fn top_level_names(group: &str) -> Vec<&str> {
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(group[start..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// What is wrong with one file's imports.
fn violations(module: &str, text: &str) -> Vec<String> {
    let Some((mine, beside)) = floor(module) else {
        return vec![format!("module {module} has no floor: add it to FLOORS")];
    };
    imports(text)
        .iter()
        .filter(|import| *import != module)
        .filter_map(|import| match floor(import) {
            None => None, // An item of the crate root, which re-exports only.
            Some((theirs, _)) if theirs < mine || beside.contains(&import.as_str()) => None,
            Some((theirs, _)) if theirs > mine => {
                Some(format!("{module} imports upward: {import}"))
            }
            Some(_) => Some(format!("{module} imports sideways: {import}")),
        })
        .collect()
}

#[test]
fn no_file_imports_upward_or_sideways() {
    let mut wrong = Vec::new();
    let files = sources();
    assert!(files.len() > 40, "only {} source files found", files.len());
    for path in files {
        let Some(module) = module_of(&path) else { continue };
        let text = fs::read_to_string(&path).unwrap();
        wrong.extend(violations(&module, &text).iter().map(|v| format!("{}: {v}", path.display())));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_check_sees_upward_and_sideways_imports_when_they_are_there() {
    assert_eq!(violations("data", "use crate::train::Plan;"), ["data imports upward: train"]);
    assert_eq!(
        violations("data", "use crate::{error::Result, comm::Peer};"),
        ["data imports sideways: comm"]
    );
    assert_eq!(
        violations("optim", "fn f() { crate::nn::probe() }"),
        ["optim imports sideways: nn"]
    );
    assert!(violations("model", "use crate::nn::{Param, ParamSet};").is_empty());
    assert!(violations("data", "// crate::train is above").is_empty());
    assert_eq!(violations("novel", "").len(), 1);
}

#[test]
fn only_comm_speaks_to_mpi() {
    for path in sources() {
        if module_of(&path).as_deref() == Some("comm") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
        for line in code {
            let foreign = line.replace("comm::mpi::", "");
            assert!(!foreign.contains("mpi::"), "{}: {line}", path.display());
        }
    }
}

#[test]
fn files_stay_small_enough_to_be_one_concept() {
    for path in sources() {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 400, "{} has {lines} lines; 400 is the limit", path.display());
    }
}

#[test]
fn unsafe_code_is_allowed_in_few_named_files_and_always_argued() {
    let allowed = [
        "collective/canonical_in_node.rs",
        "collective/in_node.rs",
        "collective/node.rs",
        "comm/mpi/raw.rs",
        "nn/gemm.rs",
        "nn/simd.rs",
        "util/aligned.rs",
        "util/allocator.rs",
        "util/malloc.rs",
        "util/shared.rs",
        "util/wide.rs",
    ];
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let here = path.to_str().unwrap();
        if text.contains("allow(unsafe_code)") {
            assert!(allowed.iter().any(|a| here.ends_with(a)), "unsafe code in {here}");
            let blocks = text.lines().filter(|l| l.contains("unsafe {")).count();
            let reasons = text.matches("SAFETY:").count();
            assert!(reasons >= blocks, "{here}: {blocks} unsafe blocks, {reasons} reasons");
        }
    }
}
