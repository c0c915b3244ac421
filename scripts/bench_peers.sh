#!/usr/bin/env bash
# Measures annulus beside PyTorch DDP, Horovod, TensorFlow, stock Candle, gloo and MPI on this machine:
#
#   scripts/bench_peers.sh [--only REGEX] [--rounds N] [--quick] [--list] [--json FILE] [--work DIR]
#
# The peers are installed into DIR (default: annulus-peers in the user's cache folder; about 8 GB, and
# minutes of building for Horovod), only those that the chosen comparisons need, and kept there. One that
# cannot be installed is named in the table and does not stop the others. benches/peers/README.md says
# what is compared. PEERS_PYTHON names the Python for the peers (default python3; they have wheels for
# 3.10 to 3.13). ANNULUS and ANNULUS_MPIRUN choose our program and its launcher, as everywhere.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

torch_version=2.15.0
tensorflow_version=2.21.0
horovod_version=0.28.1 # the last release, of 2023

work=${XDG_CACHE_HOME:-$HOME/.cache}/annulus-peers
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --work) [ $# -gt 1 ] || { echo "bench_peers: --work needs a folder" >&2; exit 64; }; work=$2; shift ;;
    --work=*) work=${1#--work=} ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
mkdir -p "$work"
work=$(cd "$work" && pwd)
run=(python3 benches/peers/run.py --work "$work" "${arguments[@]}")
needs=$("${run[@]}" --needs)
case " ${arguments[*]-} " in *" --list "* | *" --help "* | *" -h "*) exec "${run[@]}" ;; esac

needed() { [[ " $needs " == *" $1 "* ]]; }

# install NAME COMMAND…: runs it with its output in a log; a failure is noted for the table.
install() {
  local name=$1 log=$work/log/install-$1.txt
  shift
  mkdir -p "$work/log"
  rm -f "$work/failed-$name"
  # In the background, since bash ignores -e in a command whose failure is asked for.
  (
    set -e
    "$@"
  ) >"$log" 2>&1 &
  if ! wait $!; then
    echo "see $log: $(tail -n 1 "$log" | cut -c 1-120)" >"$work/failed-$name"
    echo "bench_peers: $name could not be installed, see $log" >&2
  fi
}

venv() { [ -x "$work/$1/bin/python" ] || "${PEERS_PYTHON:-python3}" -m venv "$work/$1"; }

install_torch() {
  venv torch
  "$work/torch/bin/python" -c 'import torch, numpy' 2>/dev/null ||
    "$work/torch/bin/pip" install -q "torch==$torch_version" numpy
}

install_tensorflow() {
  venv tf
  "$work/tf/bin/python" -c 'import tensorflow' 2>/dev/null ||
    "$work/tf/bin/pip" install -q "tensorflow-cpu==$tensorflow_version"
}

# Horovod's CMake files ask for C++14; the headers of today's PyTorch need C++20. Its bundled gloo does
# not configure with CMake 4.
install_horovod() {
  local pip=$work/torch/bin/pip source=$work/horovod-$horovod_version
  "$work/torch/bin/python" -c 'import horovod.torch' 2>/dev/null && return
  "$pip" install -q wheel setuptools psutil cloudpickle pyyaml cffi packaging 'cmake<4'
  "$pip" download -q --no-deps --no-binary :all: --no-build-isolation -d "$work" "horovod==$horovod_version"
  rm -rf "$source"
  tar -xzf "$source.tar.gz" -C "$work"
  sed -i 's/set(CMAKE_CXX_STANDARD 14)/set(CMAKE_CXX_STANDARD 20)/' \
    "$source/CMakeLists.txt" "$source/horovod/torch/CMakeLists.txt"
  PATH=$work/torch/bin:$PATH HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 \
    HOROVOD_WITH_MPI=1 MAKEFLAGS=${MAKEFLAGS:--j$(nproc)} \
    "$pip" install -q --no-build-isolation --no-deps "$source"
}

# Its package has another name since Ubuntu 24.04.
install_tcmalloc() { need_packages libtcmalloc-minimal4 || need_packages libtcmalloc-minimal4t64; }

install_mpi() { # openmpi|mpich PACKAGE…
  local name=$1
  shift
  need_packages "$@"
  "$(command -v "mpicc.$name" || command -v mpicc)" -O3 benches/peers/mpi_allreduce.c -lm \
    -o "$work/bin/allreduce-$name"
}

install_mpich() {
  install_mpi mpich mpich libmpich-dev
  [ -n "${ANNULUS_MPICH:-}" ] || MPICC=mpicc.mpich CARGO_TARGET_DIR=target/mpich cargo build --release --locked
}

mkdir -p "$work/bin"
need_packages build-essential util-linux
need_rust
cc -O3 -pthread benches/peers/c2c.c -o "$work/bin/c2c"
[ -n "${ANNULUS:-}" ] || { say "building annulus"; cargo build --release --locked; }
say "installing the peers into $work"
needed openmpi && install openmpi install_mpi openmpi openmpi-bin libopenmpi-dev
needed mpich && install mpich install_mpich
needed tcmalloc && install tcmalloc install_tcmalloc
needed torch && install torch install_torch
needed horovod && install horovod install_horovod
needed tensorflow && install tensorflow install_tensorflow
needed cargo && install cargo cargo bench --locked --bench step --no-run
say "measuring"
"${run[@]}"
