#!/usr/bin/env bash
# Installs what is missing and runs everything that must pass.
#
#   scripts/test.sh          format, lints, unit tests, multi-rank tests under Open MPI and MPICH, docs
#   scripts/test.sh --all    also what takes long (scripts/extra): PyTorch, a real Slurm, the CUDA compile
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
all=${1:-}

need_packages build-essential pkg-config openmpi-bin libopenmpi-dev mpich libmpich-dev libclang-dev \
  shellcheck
need_rust

say "format"
cargo fmt --check
shellcheck -x -S warning scripts/*.sh scripts/*/*.sh scripts/slurm/*.sbatch

say "lints"
cargo clippy --release --locked --all-targets -- -D warnings

say "documentation"
RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --release --locked --no-deps --document-private-items --quiet

say "building for Open MPI"
cargo build --release --locked --examples --bins
say "building for MPICH"
MPICC=mpicc.mpich CARGO_TARGET_DIR=target/mpich cargo build --release --locked

say "tests"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# A test that hangs ends the run with its name ("has been running for over 60 seconds") instead of holding
# it for ever; all tests take about 12 minutes on two cores.
timeout --verbose 50m cargo test --release --locked

if [ "$all" = "--all" ]; then
  for extra in scripts/extra/*.sh; do
    say "$extra"
    "$extra"
  done
fi
say "everything passed"
