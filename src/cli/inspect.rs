//! `annulus inspect`: what is in a data set?

use super::args::InspectArgs;
use super::ending;
use crate::config::{Card, Data};
use crate::data::facts::Facts;
use crate::data::{self, Dataset, IGNORED};
use crate::error::{Error, Result};
use crate::report::console::say;
use crate::report::gallery::{self, Picture};
use crate::report::prepared::MANIFEST;
use crate::util::human;
use serde_json::Value;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

/// Samples whose numbers are looked at.
const LOOKED_AT: usize = 10_000;

/// Classes up to which each has a line.
const LISTED: usize = 20;

/// Numbers of a sample that are printed.
const NUMBERS: usize = 12;

/// Prints what is in a data set; gives the exit code.
#[must_use]
pub fn run(args: &InspectArgs) -> ExitCode {
    match inspect(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ending::tell(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

fn fact(label: &str, text: &str) {
    say(&format!("  {label:<10} {text}"));
}

fn inspect(args: &InspectArgs) -> Result<()> {
    let folder = args.data.is_dir();
    if folder {
        prepared(&args.data)?;
    }
    let file = if folder { args.data.join("data.json") } else { args.data.clone() };
    let (card, places) = Card::load_data(&file, &args.sets)?;
    let data = &card.data;
    let (train, evaluated) = places.point(data::open(data))?;
    say(&format!("{}: {}, {} classes", file.display(), data.format.name(), data.classes));
    describe("train", train.as_ref())?;
    if let Some(set) = &evaluated {
        describe(if data.val.is_some() { "val" } else { "test" }, set.as_ref())?;
    }
    if data.val.is_some() && data.test.is_some() {
        let without = Data { val: None, ..data.clone() };
        if let (_, Some(test)) = places.point(data::open(&without))? {
            describe("test", test.as_ref())?;
        }
    }
    let shown = args.samples.min(train.len());
    if train.sample_shape().len() == 3 {
        return pictures(&card, train.as_ref(), shown, args.sheet.as_deref());
    }
    if args.sheet.is_some() {
        return Err(Error::Usage("--sheet: the samples are no pictures".to_owned()));
    }
    (0..shown).try_for_each(|i| row(train.as_ref(), i))
}

/// What a folder that `annulus prepare` has written says of itself.
fn prepared(folder: &Path) -> Result<()> {
    let path = folder.join(MANIFEST);
    let text = std::fs::read_to_string(&path).map_err(|e| Error::reading(&path, &e))?;
    let manifest: Value = serde_json::from_str(&text)
        .map_err(|e| Error::Data(format!("{}, line {}: {e}", path.display(), e.line())))?;
    say(&format!("{}: written by annulus prepare", folder.display()));
    let items = &manifest["items"];
    let counts =
        format!("{} found, {} kept, {} removed", items["found"], items["kept"], items["removed"]);
    fact("items", &counts);
    for (reason, count) in items["reasons"].as_object().into_iter().flatten() {
        fact("", &format!("{count} {reason}"));
    }
    for class in manifest["classes"].as_array().into_iter().flatten() {
        let of = |part: &str| format!("{} {part}", class[part]);
        let name = class["name"].as_str().unwrap_or_default().escape_debug().to_string();
        fact("class", &format!("{name}: {}, {}, {}", of("train"), of("val"), of("test")));
    }
    for part in manifest["parts"].as_array().into_iter().flatten() {
        let of = |what: &str| format!("{} {what}", part[what]);
        let name = part["name"].as_str().unwrap_or_default();
        fact("part", &format!("{name}: {}, {}, {}", of("documents"), of("bytes"), of("tokens")));
    }
    let files = manifest["files"].as_array().map_or(0, Vec::len);
    fact("files", &format!("{files}; options {}", manifest["options"]));
    Ok(())
}

fn describe(name: &str, set: &dyn Dataset) -> Result<()> {
    let shape: Vec<String> = set.sample_shape().iter().map(ToString::to_string).collect();
    let what = if set.labels_per_sample() > 1 { "windows of tokens" } else { "samples" };
    let count = human::count(set.len() as u64);
    fact(
        name,
        &format!("{count} {what}, {}, fingerprint {}", shape.join("×"), &set.fingerprint()[..16]),
    );
    let facts = Facts::of(set, LOOKED_AT)?;
    let some = match facts.looked_at {
        n if n == set.len() => String::new(),
        n => format!(" (of {}, evenly spread)", human::count(n as u64)),
    };
    let Facts { mean, std, least, most, .. } = facts;
    if set.labels_per_sample() == 1 {
        fact("", &format!("mean {mean:.4}, deviation {std:.4}, {least:.4} to {most:.4}{some}"));
    }
    if set.predicts_numbers() {
        fact("", "labels are numbers to predict");
        return Ok(());
    }
    classes(&facts.classes, if set.labels_per_sample() == 1 { "" } else { &some });
    Ok(())
}

/// How often each class is there: all of them with a bar, or the rarest and the most frequent.
fn classes(counts: &[u64], some: &str) {
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    if counts.len() > LISTED {
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by_key(|&class| std::cmp::Reverse(counts[class]));
        let never = counts.iter().filter(|&&count| count == 0).count();
        let first: Vec<String> = order
            .iter()
            .take(8)
            .map(|&class| format!("{class} ({})", human::count(counts[class])))
            .collect();
        fact("", &format!("most frequent classes {}; {never} never seen{some}", first.join(", ")));
        return;
    }
    for (class, &count) in counts.iter().enumerate() {
        let bar = "█".repeat((count * 30).div_ceil(most) as usize);
        let title = if class == 0 { "class" } else { "" };
        fact(
            title,
            &format!(
                "{class:>3} {:>9} {bar}{}",
                human::count(count),
                if class == 0 { some } else { "" }
            ),
        );
    }
}

/// One sample that is no picture.
fn row(set: &dyn Dataset, index: usize) -> Result<()> {
    let (mut values, mut labels) = (vec![0.0; set.sample_len()], vec![0; set.labels_per_sample()]);
    set.read_all(index, &mut values, &mut labels)?;
    if let Some(text) = set.as_text(index)? {
        fact(&format!("sample {index}"), &format!("“{}”", text.escape_debug()));
        return Ok(());
    }
    let shown: Vec<String> = values.iter().take(NUMBERS).map(ToString::to_string).collect();
    let rest = if values.len() > NUMBERS { " …" } else { "" };
    let labels: Vec<String> =
        labels.iter().filter(|&&l| l != IGNORED).take(NUMBERS).map(ToString::to_string).collect();
    fact(&format!("sample {index}"), &format!("{}{rest} → {}", shown.join(" "), labels.join(" ")));
    Ok(())
}

fn pictures(card: &Card, set: &dyn Dataset, shown: usize, sheet: Option<&Path>) -> Result<()> {
    let scale = card.data.normalize;
    let mut samples = Vec::new();
    for index in 0..shown {
        let mut values = vec![0.0; set.sample_len()];
        let label = set.read(index, &mut values)?;
        values.iter_mut().for_each(|v| *v = *v * scale.std + scale.mean);
        samples.push((values, label));
    }
    // Numbers that were not pixels have a range of their own.
    let all = || samples.iter().flat_map(|(values, _)| values.iter().copied());
    let range = [all().fold(0.0, f32::min), all().fold(1.0, f32::max)];
    let pictures: Vec<(Picture, String)> = samples
        .iter()
        .filter_map(|(values, label)| {
            Some((Picture::of(values, set.sample_shape(), range)?, label.to_string()))
        })
        .collect();
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match sheet {
        Some(path) => {
            let across = gallery::sheet(&pictures, path)?;
            let labels: Vec<&str> = pictures.iter().map(|(_, label)| &**label).collect();
            fact(
                "sheet",
                &format!("{}, {across} in a row, labels {}", path.display(), labels.join(" ")),
            );
        }
        None if colours => {
            let size = rustix::termios::tcgetwinsize(std::io::stdout());
            let width = size.map_or(0, |size| usize::from(size.ws_col));
            let width = if width == 0 { 80 } else { width };
            say(&gallery::on_terminal(&pictures, width));
        }
        None => fact("pictures", "--sheet FILE writes the first ones as a PNG"),
    }
    Ok(())
}
