//! What a run tells: files for programs, lines for people. Rank 0 writes; the others are silent.

pub mod axis;
pub mod console;
pub mod gallery;
pub mod heartbeat;
pub mod ledger;
pub mod lines;
pub mod lr_range;
pub mod metrics;
pub mod page;
pub mod plot;
pub mod preparation;
pub mod preparation_text;
pub mod prepared;
pub mod prepared_table;
pub mod run_folder;
pub mod search;
pub mod sketch;
pub mod status;
mod terminal;
