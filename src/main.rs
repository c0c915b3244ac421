//! The `annulus` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    annulus::cli::run()
}
