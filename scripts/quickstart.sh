#!/usr/bin/env bash
# From nothing to a trained model: installs what is missing (Debian, Ubuntu), builds, and trains
# LeNet-5 on the MNIST data in this repository with two MPI ranks.
#
#   scripts/quickstart.sh [RANKS]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
ranks=${1:-2}

need_packages build-essential pkg-config openmpi-bin libopenmpi-dev libclang-dev
need_rust
say "building (a few minutes the first time)"
cargo build --release --locked
say "training LeNet-5 on MNIST with $ranks ranks"
scripts/launch_local.sh "$ranks" train configs/lenet-mnist.json --resume never
cat <<'END'

What next?
  scripts/launch_local.sh 2 eval runs/lenet-mnist configs/lenet-mnist.json   evaluate the model again
  scripts/launch_local.sh 2 train configs/mlp-mnist.json                     another model
  target/release/annulus train configs/lenet-mnist.json --dry-run            look before you train
  target/release/annulus --help                                              all commands
  docs/CLUSTER.md                                                            several machines, Slurm
END
