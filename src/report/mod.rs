//! What a run tells: files for programs, lines for people. Rank 0 writes; the others are silent.

pub mod console;
pub mod gallery;
pub mod heartbeat;
pub mod ledger;
pub mod lines;
pub mod metrics;
pub mod preparation;
pub mod preparation_text;
pub mod run_folder;
pub mod status;
mod terminal;
