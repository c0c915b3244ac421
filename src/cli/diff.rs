//! `annulus diff`: where do two runs part?

use super::args::DiffArgs;
use super::ending;
use crate::config::{Card, results};
use crate::error::{Error, Result};
use crate::report::console::say;
use crate::report::ledger::{self, LEDGER};
use std::path::Path;
use std::process::ExitCode;

/// Runs that are not the same bit for bit: as for replicas.
const DIFFER: u8 = 76;

/// Prints what two runs have in common and where they part; gives the exit code.
#[must_use]
pub fn run(args: &DiffArgs) -> ExitCode {
    match compare(&args.a, &args.b) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(DIFFER),
        Err(error) => {
            ending::tell(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Whether two runs are the same.
fn compare(a: &Path, b: &Path) -> Result<bool> {
    let cards = results::differences(&card(a)?, &card(b)?)?;
    let (left, right) = (ledger::read(&a.join(LEDGER))?, ledger::read(&b.join(LEDGER))?);
    let fact = |label: &str, text: &str| say(&format!("  {label:<10} {text}"));
    let mut same = cards.is_empty();
    match cards.as_slice() {
        [] => fact("cards", "the same in all that decides results"),
        [first, rest @ ..] => {
            fact("cards", first);
            rest.iter().for_each(|text| fact("", text));
        }
    }
    for (label, x, y, counts) in [
        ("data", &left.about.data, &right.about.data, true),
        ("program", &left.about.program, &right.about.program, false),
        ("ranks", &left.about.ranks.to_string(), &right.about.ranks.to_string(), false),
    ] {
        match x == y {
            true => fact(label, "the same"),
            false => fact(label, &format!("{x} and {y}")),
        }
        same &= x == y || !counts;
    }
    let found = ledger::compare(&left, &right);
    let (p, q) = (left.steps.len(), right.steps.len());
    fact("steps", &format!("{p} and {q} written down, {} of them in both", found.common));
    same &= p == q && found.common == p;
    match &found.step {
        None => fact("", "loss, gradient norm and samples are the same in all of those"),
        Some((step, what)) => fact("first", &format!("step {step} differs in {what}")),
    }
    match (&found.tensor, found.same_after) {
        (None, None) => fact("tensors", "no hash of them is in both"),
        (None, Some(step)) => fact("tensors", &format!("the same up to step {step}")),
        (Some((step, name, count)), before) => {
            let before = before.map_or(String::new(), |s| format!(", the same after step {s}"));
            let text = format!("{name} differs after step {step}, {count} in all{before}");
            fact("tensors", &text);
        }
    }
    same &= found.step.is_none() && found.tensor.is_none();
    say(if same { "the runs are the same, bit for bit" } else { "the runs differ" });
    Ok(same)
}

/// The card that a run has kept.
fn card(run: &Path) -> Result<Card> {
    let path = run.join("card.json");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::reading(&path, &e))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::Data(format!("{}, line {}: {e}", path.display(), e.line())))
}
