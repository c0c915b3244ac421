//! `annulus eval`.

use super::args::EvalArgs;
use crate::collective::Group;
use crate::config::Card;
use crate::error::Result;
use crate::report::console::say;
use crate::report::run_folder::{MODEL, to_json};
use crate::train;
use crate::train::metrics::Confusion;
use crate::util::files;

/// Up to so many classes are shown as a matrix.
const SHOWN: usize = 16;

/// Prints what the card's evaluations count, of a model on the card's test set.
///
/// # Errors
/// When card, data or model are not what they should be.
pub fn run(args: &EvalArgs, group: &mut Group) -> Result<()> {
    let loaded = Card::load_with_places(&args.card, &args.sets);
    let (card, places) = group.together(loaded)?;
    let threads = args.threads.map(usize::from).or(card.reproducible.map(|mode| mode.threads));
    train::use_threads(threads, group)?;
    let model = if args.model.is_dir() { args.model.join(MODEL) } else { args.model.clone() };
    let eval = places.point(train::evaluate(card, &model, args.device, group))?;
    let details = eval.details.as_ref();
    let write = || match &args.json {
        Some(path) if group.rank() == 0 => {
            files::write_whole(path, &to_json(&eval.report(details))?)
        }
        _ => Ok(()),
    };
    let written = write();
    group.together(written)?;
    if group.rank() != 0 {
        return Ok(());
    }
    let accuracy = match eval.tally.accuracy() {
        share if share.is_nan() => String::new(),
        _ => format!("test accuracy {}  ", train::percent(&eval.tally)),
    };
    let (loss, model) = (eval.tally.mean_loss(), model.display());
    say(&format!("{accuracy}test loss {loss:.6}  model {model}"));
    for (name, value) in eval.named() {
        say(&format!("  {name:<16} {value:.6}"));
    }
    details.map_or_else(Vec::new, table).iter().for_each(|line| say(line));
    Ok(())
}

/// The classes: all of them with the matrix if they are few, else the weakest and the commonest mistakes.
fn table(confusion: &Confusion) -> Vec<String> {
    let classes = confusion.classes();
    let few = confusion.size() <= SHOWN;
    let mut order: Vec<usize> = (0..classes.len()).filter(|&i| classes[i].support > 0).collect();
    if !few {
        order.sort_by(|&a, &b| classes[a].f1.total_cmp(&classes[b].f1).then(a.cmp(&b)));
        order.truncate(10);
    }
    let widest = confusion.rows().concat().into_iter().max().unwrap_or(0);
    let width = widest.max(confusion.size() as u64).to_string().len();
    let columns = if few { (0..classes.len()).collect() } else { Vec::new() };
    let head: String = columns.iter().map(|c: &usize| format!(" {c:>width$}")).collect();
    let what = if few { "label" } else { "weakest" };
    let mut lines = vec![format!("  {what:<8}{head}  precision  recall      f1  samples")];
    for i in order {
        let row: String =
            columns.iter().map(|&c| format!(" {:>width$}", confusion.at(i, c))).collect();
        let c = &classes[i];
        lines.push(format!(
            "  {i:<8}{row}  {:>9.4}  {:.4}  {:.4}  {:>7}",
            c.precision, c.recall, c.f1, c.support
        ));
    }
    if !few {
        let mistakes = confusion.mistakes(5).into_iter();
        let texts: Vec<String> =
            mistakes.map(|(label, taken, n)| format!("{label} as {taken} {n}×")).collect();
        if !texts.is_empty() {
            lines.push(format!("  taken    {}", texts.join(", ")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confusion(classes: usize, pairs: &[(usize, usize)]) -> Confusion {
        let mut confusion = Confusion::new(classes);
        pairs.iter().for_each(|&(label, taken)| confusion.see(label, Some(taken)));
        confusion
    }

    #[test]
    fn few_classes_are_shown_as_a_matrix() {
        let lines = table(&confusion(2, &[(0, 0), (0, 0), (0, 1), (1, 1)]));
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], "  label    0 1  precision  recall      f1  samples");
        assert_eq!(lines[1], "  0        2 1     1.0000  0.6667  0.8000        3");
        assert_eq!(lines[2], "  1        0 1     0.5000  1.0000  0.6667        1");
    }

    #[test]
    fn of_many_classes_the_weakest_and_the_commonest_mistakes_are_shown() {
        let mut pairs: Vec<(usize, usize)> = (0..40).map(|i| (i, i)).collect();
        pairs.extend([(7, 9), (7, 9), (3, 4)]);
        let lines = table(&confusion(40, &pairs));
        assert_eq!(lines.len(), 12);
        assert!(lines[1].starts_with("  7  "), "{lines:?}");
        assert_eq!(lines[11], "  taken    7 as 9 2×, 3 as 4 1×");
    }
}
