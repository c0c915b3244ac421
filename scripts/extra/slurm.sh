#!/usr/bin/env bash
# The batch script under a real Slurm with two nodes on this machine, with srun and with mpirun: a job that
# reaches its time limit saves itself, goes back into the queue, resumes, and ends with the parameters
# of a run that was never disturbed. Needs root (slurmd starts the tasks). Takes about eight minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
state=$(mktemp -d /tmp/annulus-slurm-XXXX)
trap 'scripts/lab/slurm-down.sh "$state" >/dev/null; rm -rf "$state"' EXIT
scripts/lab/slurm-up.sh "$state" 2 1
# shellcheck disable=SC1091
. "$state/env.sh"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# Long enough for two terms of the short jobs below on this machine: two and a half minutes of training.
target/release/annulus train configs/lenet-mnist.json --threads 1 --set train.epochs=2 --out "$state/pace" >/dev/null
epochs=$(sed -n 's/.*"kind":"summary".*"seconds":\([0-9.]*\).*/\1/p' "$state/pace/metrics.jsonl" |
  awk '{ print int(150 / ($1 / 4)) + 1 }')
long=(configs/lenet-mnist.json --set "train.epochs=${EPOCHS:-$epochs}")

# submit NAME LAUNCHER [SBATCH-OPTION…] -- CARD [TRAIN-OPTION…]: waits for the job's last end; sets
# $restarts and $hash.
submit() {
  local name=$1 launch=$2 options=() log=$state/$1-$2.log job info run
  shift 2
  while [ "$1" != -- ]; do
    options+=("$1")
    shift
  done
  shift
  job=$(ANNULUS_LAUNCH=$launch sbatch --parsable --nodes=2 --ntasks-per-node=1 --job-name="$name" \
    --output="$log" "${options[@]}" scripts/slurm/train.sbatch "$@")
  while :; do
    info=$(scontrol show job "$job")
    case $info in
    *JobState=COMPLETED*) break ;;
    *JobState=PENDING* | *JobState=RUNNING* | *JobState=COMPLETING* | *JobState=REQUEUED*) sleep 1 ;;
    *)
      cat "$log"
      echo "$info" >&2
      exit 1
      ;;
    esac
  done
  restarts=$(sed -n 's/.*Restarts=\([0-9]*\).*/\1/p' <<<"$info")
  run=runs/$name-$job
  hash=$(sed -n 's/.*"params_hash": "\(.*\)".*/\1/p' "$run/status.json")
  rm -rf "$run"
  [ -n "$hash" ] || {
    cat "$log"
    exit 1
  }
}

submit whole srun -- "${long[@]}"
whole=$hash
echo "undisturbed: $whole"
for launch in srun mpirun; do
  # Slurm sends the signal up to a minute early: after half a minute of the two here.
  submit limited "$launch" --time=2 --signal=B:USR1@50 -- "${long[@]}"
  echo "$launch: $hash after $restarts restarts"
  [ "$hash" = "$whole" ]
  [ "$restarts" -ge 1 ]
  grep -q "resumed from" "$state/limited-$launch.log"
done
