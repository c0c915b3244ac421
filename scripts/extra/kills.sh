#!/usr/bin/env bash
# A hundred kills at random moments, under Open MPI and MPICH: nothing is lost.
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
cargo test --release --locked --test resume -- --ignored
