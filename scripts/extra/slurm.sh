#!/usr/bin/env bash
# The batch script under a real Slurm with two nodes on this machine: with srun and with mpirun, and
# both end with the same parameters. Needs root (slurmd starts the tasks).
set -euo pipefail
cd "$(dirname "$0")/../.."
state=$(mktemp -d /tmp/annulus-slurm-XXXX)
trap 'scripts/lab/slurm-down.sh "$state" >/dev/null; rm -rf "$state"' EXIT
scripts/lab/slurm-up.sh "$state" 2 1
# shellcheck disable=SC1091
. "$state/env.sh"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
hashes=()
for launch in srun mpirun; do
  ANNULUS_LAUNCH=$launch sbatch -W --nodes=2 --ntasks-per-node=1 --job-name="$launch" \
    --output="$state/$launch.log" scripts/slurm/train.sbatch configs/lenet-mnist-quick.json || {
    cat "$state/$launch.log"
    exit 1
  }
  run=$(sed -n 's/^  run  *//p' "$state/$launch.log")
  hashes+=("$(sed -n 's/.*"params_hash": "\(.*\)".*/\1/p' "$run/status.json")")
  rm -rf "$run"
done
echo "srun ${hashes[0]}, mpirun ${hashes[1]}"
[ -n "${hashes[0]}" ] && [ "${hashes[0]}" = "${hashes[1]}" ]
