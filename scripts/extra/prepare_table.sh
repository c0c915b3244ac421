#!/usr/bin/env bash
# `annulus prepare` on a table of a million rows (ROWS) beside scripts in pandas and polars that do the same,
# interleaved in one run; all must find the same counts and the statistics be those that pandas computes.
# PYTHON names an interpreter with pandas, polars and numpy; without it, one is set up in a throw-away
# environment.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install -q pandas polars numpy
  python=$work/venv/bin/python
fi
cargo build --release --locked --quiet
"$python" scripts/extra/prepare_table.py make "$work/table.csv" "${ROWS:-1000000}"
"$python" scripts/extra/prepare_table.py race "$work" target/release/annulus "${ROUNDS:-3}"
