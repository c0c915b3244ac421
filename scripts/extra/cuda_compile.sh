#!/usr/bin/env bash
# Compiles the library with CUDA on a machine without a GPU (about eight minutes on two cores): the
# compiler is assembled from wheels. What comes out is not run here.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo fetch --locked
scripts/lab/cuda-toolkit.sh target/cuda-toolkit
# shellcheck disable=SC1091
. target/cuda-toolkit/env.sh
CARGO_TARGET_DIR=target/cuda cargo check --release --locked --lib --features cuda
