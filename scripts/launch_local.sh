#!/usr/bin/env bash
# Starts annulus as several processes on this machine:
#
#   scripts/launch_local.sh N COMMAND…        for example:
#   scripts/launch_local.sh 2 train configs/lenet-mnist.json --set train.epochs=1
#
# It uses the mpirun that the binary was built for (ANNULUS_MPIRUN, default mpirun), and gives it
# what it needs on one machine: permission for root, more ranks than cores, one core per rank where
# there are enough. ANNULUS names the binary (default target/release/annulus).
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
if [ $# -lt 2 ] || ! [ "$1" -gt 0 ] 2>/dev/null; then
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 64
fi
ranks=$1
shift
binary=${ANNULUS:-$here/target/release/annulus}
mpirun=${ANNULUS_MPIRUN:-mpirun}
if [ ! -x "$binary" ]; then
  echo "launch_local: $binary is not there; build it with: cargo build --release --locked" >&2
  exit 66
fi
if ! command -v "$mpirun" >/dev/null; then
  echo "launch_local: no $mpirun; install Open MPI (scripts/quickstart.sh does it on Debian and Ubuntu)" >&2
  exit 66
fi
options=(-n "$ranks")
if "$mpirun" --version 2>&1 | grep -q "Open MPI\|OpenRTE\|PRRTE"; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  if [ "$ranks" -gt "$(nproc)" ]; then
    options+=(--oversubscribe --bind-to none --mca mpi_yield_when_idle 1)
  else
    options+=(--oversubscribe --bind-to core)
  fi
fi
exec "$mpirun" "${options[@]}" "$binary" "$@"
