#!/usr/bin/env bash
# Fifty faults drawn at random in real jobs under both MPIs (tests/random_faults.rs; ten of them are among
# the ordinary tests). Another range: scripts/extra/random_faults.sh FIRST..LAST
set -euo pipefail
cd "$(dirname "$0")/../.."
ANNULUS_RANDOM_FAULTS=${1:-0..50} cargo test --release --locked --test random_faults jobs
