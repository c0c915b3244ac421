//! `annulus train`.

use super::args::TrainArgs;
use crate::checkpoint::Resume;
use crate::collective::Group;
use crate::config::Card;
use crate::error::Result;
use crate::train;
use std::path::{Path, PathBuf};

/// Trains, or with `--dry-run` only shows what would be trained.
///
/// # Errors
/// Whatever ends the run before its time.
pub fn run(args: &TrainArgs, group: &mut Group) -> Result<()> {
    let loaded = Card::load_with_places(&args.card, &args.sets);
    let (card, places) = group.together(loaded)?;
    let threads = args.threads.map(usize::from).or(card.reproducible.map(|mode| mode.threads));
    train::use_threads(threads, group)?;
    if args.dry_run {
        return places.point(train::dry_run(card, args.device, group));
    }
    let out = out_folder(args, &card);
    places.point(train::run(card, args.device, &out, &Resume::parse(&args.resume), group))
}

fn out_folder(args: &TrainArgs, card: &Card) -> PathBuf {
    let named = || Path::new("runs").join(args.card.file_stem().unwrap_or("run".as_ref()));
    args.out.clone().or_else(|| card.report.out.clone()).unwrap_or_else(named)
}
