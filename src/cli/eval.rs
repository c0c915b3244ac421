//! `annulus eval`.

use super::args::EvalArgs;
use crate::collective::Group;
use crate::config::Card;
use crate::error::Result;
use crate::report::console::say;
use crate::report::run_folder::MODEL;
use crate::train;

/// Prints loss and accuracy of a model on the card's test set.
///
/// # Errors
/// When card, data or model are not what they should be.
pub fn run(args: &EvalArgs, group: &mut Group) -> Result<()> {
    let loaded = Card::load_with_places(&args.card, &args.sets);
    let (card, places) = group.together(loaded)?;
    let threads = args.threads.map(usize::from).or(card.reproducible.map(|mode| mode.threads));
    train::use_threads(threads, group)?;
    let model = if args.model.is_dir() { args.model.join(MODEL) } else { args.model.clone() };
    let tally = places.point(train::evaluate(card, &model, args.device, group))?;
    if group.rank() == 0 {
        say(&format!(
            "test accuracy {}  test loss {:.6}  model {}",
            train::percent(&tally),
            tally.mean_loss(),
            model.display()
        ));
    }
    Ok(())
}
