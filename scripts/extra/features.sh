#!/usr/bin/env bash
# The program without its optional features is sound as well.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo clippy --release --locked --no-default-features --all-targets -- -D warnings
