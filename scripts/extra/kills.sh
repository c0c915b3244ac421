#!/usr/bin/env bash
# A hundred kills at random moments and fifty restarts in a row, under Open MPI and MPICH: nothing is lost
# and nothing is left. A hundred more kills in reproducible mode, with another rank count after each: no
# bit changes.
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
cargo test --release --locked --test resume -- --ignored
cargo test --release --locked --test reproducible -- --ignored
