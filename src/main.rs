//! The `annulus` binary: everything is in the library.

#[global_allocator]
static ALLOCATOR: annulus::util::allocator::Allocator = annulus::util::allocator::Allocator;

fn main() -> std::process::ExitCode {
    annulus::cli::run()
}
