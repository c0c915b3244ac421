//! The card of a job: its fields, how it is read, what is checked.
//!
//! | file | holds |
//! |---|---|
//! | `card` | the card, the data set, the model |
//! | `augment` | how training samples are drawn and changed |
//! | `formats` | data file formats, the files of a data set |
//! | `csv`, `pictures` | how tables and pictures become samples |
//! | `text` | how text becomes samples |
//! | `residual`, `recurrent` | what a residual, a recurrent network demands |
//! | `regression` | numbers to predict instead of classes |
//! | `members` | which parts of a file are the samples |
//! | `prepare` | how raw material becomes parts to train on |
//! | `optimizer` | how parameters are updated |
//! | `training` | the loop |
//! | `schedule` | the learning rate over the run |
//! | `metrics` | what evaluations count, what of it is watched |
//! | `checkpoint` | when a run is saved, what is kept |
//! | `guards` | what is watched while a run goes on |
//! | `tune` | what `annulus tune` searches |
//! | `running` | communication, reports, faults |
//! | `reproducible` | the same bits at any number of ranks |
//! | `parse` | [`Card::load`]: file, `--set`, paths, one list of all problems |
//! | `json` | JSON as text: cap, line and column of what is wrong, no key twice |
//! | `places` | the line of each field, for errors |
//! | `set` | `--set path=value` |
//! | `schema` | the JSON schema, and the check of a value against it |
//! | `rules` | what one field demands of another |
//! | `results` | which fields decide the results of a run |

mod augment;
mod card;
mod checkpoint;
mod csv;
mod formats;
mod guards;
pub(crate) mod json;
mod members;
mod metrics;
mod optimizer;
mod parse;
mod pictures;
mod places;
mod prepare;
mod recurrent;
mod regression;
mod reproducible;
mod residual;
pub mod results;
mod rules;
mod running;
mod schedule;
mod schema;
mod set;
#[cfg(test)]
mod tests;
mod text;
mod training;
mod tune;

pub use augment::*;
pub use card::*;
pub use checkpoint::*;
pub use csv::*;
pub use formats::*;
pub use guards::*;
pub use members::*;
pub use metrics::{Metrics, Mode, Monitor};
pub use optimizer::*;
pub use parse::Problem;
pub use pictures::*;
pub use places::Places;
pub use prepare::*;
pub use regression::Loss;
pub use reproducible::Reproducible;
pub use running::*;
pub use schedule::*;
pub use schema::schema;
pub use text::*;
pub use training::*;
pub use tune::*;
