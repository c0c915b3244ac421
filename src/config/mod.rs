//! The card of a job: its fields, how it is read, what is checked.
//!
//! | file | holds |
//! |---|---|
//! | `card` | the card, the data set, the model |
//! | `training` | optimizer, schedule, the loop |
//! | `running` | communication, reports, faults |
//! | `parse` | [`Card::load`]: file, `--set`, paths, one list of all problems |
//! | `json` | JSON as text: cap, line and column of what is wrong, no key twice |
//! | `set` | `--set path=value` |
//! | `schema` | the JSON schema, and the check of a value against it |
//! | `rules` | what one field demands of another |

mod card;
pub(crate) mod json;
mod parse;
mod rules;
mod running;
mod schema;
mod set;
#[cfg(test)]
mod tests;
mod training;

pub use card::*;
pub use parse::Problem;
pub use running::*;
pub use schema::schema;
pub use training::*;
