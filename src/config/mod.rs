//! The card of a job: its fields ([`card`]).

mod card;

pub use card::*;
