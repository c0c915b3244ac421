#!/usr/bin/env bash
# Several hosts on this machine, each with its own network, name and shared memory: training over them is the
# training of one host, and when a cable is cut every rank says whom it lost, the job ends, and the same
# command goes on later. Needs root and network namespaces. Takes about two minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
state=$(mktemp -d /tmp/annulus-hosts-XXXX)
runs=$(mktemp -d /tmp/annulus-runs-XXXX)
trap 'scripts/lab/hosts-down.sh "$state" >/dev/null; rm -rf "$state" "$runs"' EXIT
fail() {
  echo "hosts: $*" >&2
  exit 1
}
LAB_SLOTS=2 scripts/lab/hosts-up.sh 3 none "$state"
deadline=4
job=(train configs/lenet-mnist.json --threads 1 --set data.train_limit=1000 --set data.test_limit=500
  --set train.global_batch=64 --set checkpoint.every_steps=7 --set checkpoint.every_epochs=0
  --set "comm.deadline_s=$deadline" --set 'reproducible={"leaves":4}')

# over MPI RANKS OPTION… : the job over the hosts, two ranks on each
over() {
  local mpi=$1 ranks=$2 command=(mpirun -n "$2") binary=target/release/annulus
  shift 2
  if [ "$mpi" = mpich ]; then
    command=(mpich-run -n "$ranks") binary=target/mpich/release/annulus
  fi
  scripts/lab/hosts-run.sh -s "$state" "${command[@]}" "$PWD/$binary" "${job[@]}" "$@"
}
hash_of() { sed -n 's/.*"params_hash": "\(.*\)".*/\1/p' "$1/status.json"; }

target/release/annulus "${job[@]}" --set train.epochs=3 --out "$runs/one" >/dev/null
for mpi in openmpi mpich; do
  over $mpi 6 --set train.epochs=3 --out "$runs/$mpi" | tee "$runs/log"
  grep -q "6 ranks on 3 hosts (h1, h2, h3)" "$runs/log" || fail "$mpi: not on three hosts"
  [ "$(hash_of "$runs/$mpi")" = "$(hash_of "$runs/one")" ] || fail "$mpi: three hosts and one give other bits"
done

whole=$runs/whole
target/release/annulus "${job[@]}" --set train.epochs=200 --out "$whole" >/dev/null
for mpi in openmpi mpich; do
  run=$runs/$mpi-cut
  over $mpi 6 --set train.epochs=200 --out "$run" >"$runs/log" 2>&1 &
  launcher=$!
  until [ "$(cat "$run/metrics.jsonl" 2>/dev/null | wc -l)" -ge 100 ]; do sleep 0.1; done
  scripts/lab/hosts-run.sh -s "$state" link h2 down
  cut=$SECONDS
  # Open MPI's launcher may itself wait for the host that it cannot reach; no rank may.
  until [ -z "$(pgrep -f "^[^ ]*release/annulus train configs" || true)" ]; do
    [ $((SECONDS - cut)) -le $((deadline + 4)) ] || fail "$mpi: ranks are left after $((SECONDS - cut)) s: $(cat "$runs/log")
$(pgrep -af "^[^ ]*release/annulus train configs")"
    sleep 0.1
  done
  echo "$mpi: all ranks gone $((SECONDS - cut)) s after the cut"
  scripts/lab/hosts-run.sh -s "$state" link h2 up
  # It ends when it reaches the host again, or never.
  for _ in $(seq 100); do kill -0 $launcher 2>/dev/null && sleep 0.1; done
  kill -0 $launcher 2>/dev/null && echo "$mpi: its launcher still waits for the host" && pkill -KILL -f "hostfile $state/"
  code=0
  wait $launcher || code=$?
  [ $code -ne 0 ] || fail "$mpi: code 0 after a cut"
  grep "annulus: error" "$runs/log" || fail "$mpi: nobody said anything: $(cat "$runs/log")"
  grep -q "annulus: error: .*nothing from .*(h2" "$runs/log" || fail "$mpi: h2 is not named"
  over $mpi 6 --set train.epochs=200 --out "$run" | grep "resumed from"
  [ "$(hash_of "$run")" = "$(hash_of "$whole")" ] || fail "$mpi: another hash after the cut"
done
echo "hosts: everything holds"
