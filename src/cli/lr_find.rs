//! `annulus lr-find`.

use super::args::LrFindArgs;
use crate::collective::Group;
use crate::config::Card;
use crate::error::{Error, Result};
use crate::report::axis::short;
use crate::report::console::say;
use crate::report::lr_range::{Found, suggest};
use crate::report::sketch::sketch;
use crate::report::status::STATUS;
use crate::train;
use std::path::{Path, PathBuf};

/// Finds a learning rate: takes steps at rising rates, shows how the loss goes, and writes it down. Nothing of the
/// training itself is kept.
///
/// # Errors
/// When card or data are not what they should be, or the files cannot be written.
pub fn run(args: &LrFindArgs, group: &mut Group) -> Result<()> {
    let loaded = Card::load_with_places(&args.card, &args.sets);
    let (card, places) = group.together(loaded)?;
    let range = group.together(args.range())?;
    let out = out_folder(args);
    group.from_rank_0(|| refuse_a_run(&out).map(|()| Vec::new()))?;
    let threads = args.threads.map(usize::from).or(card.reproducible.map(|mode| mode.threads));
    train::use_threads(threads, group)?;
    let points = places.point(train::lr_find(card, args.device, &range, group))?;
    group.from_rank_0(|| {
        let all = points.len() as u64 == range.steps;
        let name = args.card.display().to_string();
        let found = Found {
            card: &name,
            range,
            end: if all { "all steps were taken" } else { "the loss diverged" },
            suggestion: suggest(&points, &range),
            points: &points,
        };
        found.write(&out)?;
        show(&found, &out);
        Ok(Vec::new())
    })?;
    Ok(())
}

fn out_folder(args: &LrFindArgs) -> PathBuf {
    let named = || Path::new("runs/lr-find").join(args.card.file_stem().unwrap_or("card".as_ref()));
    args.out.clone().unwrap_or_else(named)
}

/// What belongs to a run stays as it is.
fn refuse_a_run(out: &Path) -> Result<()> {
    if out.join(STATUS).exists() {
        let out = out.display();
        return Err(Error::CannotCreate(format!(
            "{out} is the folder of a run; name another --out"
        )));
    }
    Ok(())
}

fn show(found: &Found, out: &Path) {
    let (x, y) = Found::axes();
    let points: Vec<(f64, f64)> = found.points.iter().map(|p| (p.lr, p.smoothed)).collect();
    say(&sketch(&x, &y, &points, 72, 12));
    say("");
    let fact = |label: &str, text: &str| say(&format!("  {label:<10} {text}"));
    let last = found.points.last().map_or(found.range.from, |p| p.lr);
    fact(
        "steps",
        &format!(
            "{}, the rate from {} to {}: {}",
            found.points.len(),
            short(found.range.from),
            short(last),
            found.end
        ),
    );
    match found.suggestion {
        Some(s) => {
            fact("suggestion", &format!("--set optimizer.lr={}", short(s.steepest)));
            fact("", "there the smoothed loss falls fastest");
            fact(
                "",
                &format!(
                    "{} is a tenth of the rate at which it is lowest",
                    short(s.lowest_over_ten)
                ),
            );
        }
        None => {
            fact("suggestion", "none: too few steps; give a larger --steps or a smaller --from")
        }
    }
    fact("plot", &out.join("lr-find.html").display().to_string());
}
