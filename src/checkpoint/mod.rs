//! Snapshots of named tensors on disk: each is whole or it is not there.
//!
//! ```text
//! runs/x/lock                              one job at a time (lock)
//! runs/x/checkpoints/latest                "step-00001200", for people and scripts
//! runs/x/checkpoints/step-00001200/
//!     model.safetensors optimizer.safetensors …   one file a group of tensors
//!     state.json card.json                        everything else that a run is
//!     manifest.json                               size and BLAKE3 of each; itself sealed
//! runs/x/checkpoints/.tmp-…                being written or removed; swept at the next start
//! ```
//!
//! | file | |
//! |---|---|
//! | `snapshot` | what is saved |
//! | `store` | writing: temporary folder, sync, manifest last, rename, sync, `latest` |
//! | `prune` | which older ones go, and the sweep of left-overs |
//! | `writer` | the same in a thread, with one snapshot in flight |
//! | `find`, `load` | reading: the newest sound one, with the reason for each refusal |
//! | `lock` | one job per run folder |
//! | `disk` | the file system in eight operations, so that tests can stop it after any of them |
//! | `manifest`, `state_file`, `tensors`, `names` | formats |
//! | `optimizer` | an optimizer's memory as named tensors |
//! | `model_file` | a model alone, for other programs |

pub mod disk;
mod find;
mod load;
mod lock;
mod manifest;
pub mod model_file;
mod names;
pub mod optimizer;
mod prune;
mod snapshot;
mod state_file;
mod store;
mod tensors;
mod writer;

pub use find::{Found, Refusal, Resume, find, last_step};
pub use lock::RunLock;
pub use prune::{Keep, Swept, retire_newer, set_aside, sweep};
pub use snapshot::{Bits, Group, Snapshot};
pub use store::{Saved, Store};
pub use writer::{Totals, Writer};
