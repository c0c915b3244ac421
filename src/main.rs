//! The `annulus` binary.

fn main() {}
