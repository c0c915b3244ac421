#!/usr/bin/env bash
# `annulus prepare` on a text of 500 MB that is made here, with duplicates, near-duplicates, broken lines and
# encodings planted in it: all of them are found, memory does not grow with the texts, and throughput stands
# beside that of a script with pandas and datasketch, in turn in one run. The script needs about a second for a
# megabyte and keeps all in memory, so it gets 25 MB. MB, SMALL, PYTHON_MB and ROUNDS change the sizes. PYTHON names an interpreter with numpy,
# pandas and datasketch; without it, one is set up in a throw-away environment.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
need_rust
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install -q numpy pandas datasketch
  python=$work/venv/bin/python
fi
cargo build --release --locked --quiet
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
"$python" scripts/extra/prepare_text.py compare target/release/annulus data/shakespeare/plays.txt
