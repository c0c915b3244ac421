#!/usr/bin/env bash
# What holds on a GPU (about three minutes): layers, models and loss series as on the processor; the same
# bits twice, and after a kill and a resume; the guards; what is said of a GPU that is missing or full.
# Skipped, in words, where there is none.
#
#   ANNULUS            a binary built with CUDA   } default: built here, which needs the CUDA toolkit
#   ANNULUS_GPU_TESTS  the library's test program } (scripts/lab/cuda-toolkit.sh) and eight minutes
#   ANNULUS_MPIRUN     Open MPI's launcher of that binary (default mpirun); none: one rank only
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! nvidia-smi >/dev/null 2>&1; then
  echo "gpu: SKIPPED, nothing was checked: this machine has no NVIDIA GPU (nvidia-smi fails)"
  exit 0
fi
if [ -z "${ANNULUS:-}" ]; then
  scripts/lab/cuda-toolkit.sh target/cuda-toolkit
  # shellcheck disable=SC1091
  . target/cuda-toolkit/env.sh
  export CARGO_TARGET_DIR=target/cuda
  cargo build --release --locked --features cuda
  ANNULUS=$CARGO_TARGET_DIR/release/annulus
  cargo test --release --locked --features cuda --lib -- --ignored gpu
else
  "${ANNULUS_GPU_TESTS:?name the test program of the library, too}" --ignored gpu
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ANNULUS_ALLOW_FAULTS=1
mpirun=${ANNULUS_MPIRUN:-mpirun}
command -v "$mpirun" >/dev/null || mpirun=
runs=$(mktemp -d /tmp/annulus-gpu-XXXX)
trap 'rm -rf "$runs"' EXIT
quick=configs/lenet-mnist-quick.json

# train NAME RANKS ARGS…: a run in $runs/NAME; sets $code; its words are in $runs/NAME.log
train() {
  local name=$1 launch=()
  [ "$2" = 1 ] || launch=("$mpirun" --oversubscribe --bind-to none -n "$2")
  shift 2
  code=0
  "${launch[@]}" "$ANNULUS" train "$@" --out "$runs/$name" >"$runs/$name.log" 2>&1 || code=$?
}
# must CODE NAME WORD…: the run ended with that code and said these words
must() {
  local wanted=$1 log=$runs/$2.log
  shift 2
  [ "$code" = "$wanted" ] || { cat "$log"; echo "gpu: exit code $code, expected $wanted" >&2; exit 1; }
  for word in "$@"; do
    grep -qF -- "$word" "$log" || { cat "$log"; echo "gpu: «$word» was not said" >&2; exit 1; }
  done
  sed -n 's/^annulus: /    /p' "$log" | grep -v "ran out of words" | cut -c1-600 || true
}
hash() { sed -n 's/^ *"params_hash": "\(.*\)",*/\1/p' "$runs/$1/status.json"; }
same() { [ -n "$(hash "$1")" ] && [ "$(hash "$1")" = "$(hash "$2")" ] || { echo "gpu: $1 and $2 differ" >&2; exit 1; }; }
# near A B STEPS SHARE: the losses of the first steps differ by at most this share of theirs
near() {
  python3 - "$runs/$1/metrics.jsonl" "$runs/$2/metrics.jsonl" "$3" "$4" <<'PY'
import json, sys
def losses(path):
    lines = [json.loads(line) for line in open(path)]
    return [x["loss"] for x in lines if x["kind"] == "step"], [x["accuracy"] for x in lines if x["kind"] == "eval"]
(a, ea), (b, eb) = losses(sys.argv[1]), losses(sys.argv[2])
steps, share = int(sys.argv[3]), float(sys.argv[4])
apart = [abs(x - y) / abs(x) for x, y in zip(a, b)]
print(f"    losses apart: first step {apart[0]:.1e}, at most {max(apart[:steps]):.1e} in {steps} steps, "
      f"{max(apart):.1e} in all {len(apart)}; accuracies {ea[-1:]} {eb[-1:]}")
if len(a) != len(b) or len(a) < steps or max(apart[:steps]) > share:
    sys.exit(f"gpu: more than {share} apart")
PY
}

echo "doctor"
"$ANNULUS" doctor | grep -F "cuda" | tee "$runs/doctor.log"
grep -q "GPU 0 (" "$runs/doctor.log"

echo "loss series on the processor and on the GPU"
train quick-cpu 1 $quick
must 0 quick-cpu
train quick 1 $quick --device cuda
must 0 quick "GPU 0 ("
near quick-cpu quick 20 1e-3
mlp=(configs/mlp-mnist.json --set train.epochs=null --set train.max_steps=100)
train mlp-cpu 1 "${mlp[@]}"
must 0 mlp-cpu
train mlp 1 "${mlp[@]}" --device cuda
must 0 mlp
# Adam divides by its moments: rounding of gradients near zero grows from step to step.
near mlp-cpu mlp 10 1e-3

echo "the same bits twice, and after a kill and a resume"
train again 1 $quick --device cuda
must 0 again
same quick again
often=(--set checkpoint.every_steps=10 --device cuda)
train resumed 1 $quick "${often[@]}" --set 'faults=[{"rank":0,"step":36,"kind":"kill"}]'
must 137 resumed
train resumed 1 $quick "${often[@]}" --set 'faults=[]'
must 0 resumed
same quick resumed

echo "evaluation of the saved model"
for device in cpu cuda; do "$ANNULUS" eval "$runs/quick" $quick --device $device | tee "$runs/eval-$device"; done
[ "$(cut -d' ' -f1-5 "$runs/eval-cpu")" = "$(cut -d' ' -f1-5 "$runs/eval-cuda")" ]

echo "guards"
train nan 1 $quick --device cuda --set 'faults=[{"rank":0,"step":5,"kind":"nan"}]'
must 77 nan "step 5"

echo "a GPU that is not there, or full"
train missing 1 $quick --device cuda:97
must 78 missing "there is no GPU 97" "GPU 0 ("
train reproducible 1 $quick --device cuda --set 'reproducible={"leaves":4}'
must 78 reproducible "--device cpu"
big=(--set model.kind=mlp --set 'model.hidden=[400000]' --set data.train_limit=60000
  --set train.global_batch=60000 --set optimizer.kind=sgd)
train full 1 $quick --device cuda "${big[@]}"
must 70 full "out of memory" "GPU 0 (" "free)" "a batch of 60,000" "train.accumulate"

if [ -z "$mpirun" ]; then
  echo "gpu: one rank only: there is no mpirun here"
  exit 0
fi
echo "two and three ranks on one GPU"
train two 2 $quick --device cuda:0
must 0 two
near quick two 20 1e-3
train flip 3 $quick --device cuda:0 --set guards.replicas_every=10 \
  --set 'faults=[{"rank":1,"step":14,"kind":"flip"}]'
must 76 flip "rank 1"
train killed 2 $quick --device cuda:0 --set comm.deadline_s=5 --set 'faults=[{"rank":1,"step":20,"kind":"stop"}]'
must 69 killed "rank 1"
gpus=$(nvidia-smi --list-gpus | wc -l)
train crowded $((gpus + 1)) $quick --device cuda
must 78 crowded "there is no GPU $gpus" "--device cuda:0"
echo "gpu: everything holds"
