#!/usr/bin/env bash
# hosts-run.sh [-s STATE_DIR] HOST COMMAND...      run COMMAND on HOST (h1, h2, ...)
# hosts-run.sh [-s STATE_DIR] mpirun ARGS...       Open MPI over the hosts, started on h1
# hosts-run.sh [-s STATE_DIR] mpich-run ARGS...    MPICH's hydra over the hosts, likewise
# hosts-run.sh [-s STATE_DIR] rate HOST RATE       limit HOST's cable, both directions ('none': no limit)
# hosts-run.sh [-s STATE_DIR] link HOST down|up    pull HOST's cable out (it sees no carrier) / plug it in
# hosts-run.sh [-s STATE_DIR] drop HOST [on|off]   the switch loses every packet of HOST, whose link stays up
# hosts-run.sh [-s STATE_DIR] crash HOST           power cut: the cable goes, then kill -9 of all that runs there
# hosts-run.sh [-s STATE_DIR] stat                 bytes sent by each host and by the switch to it
set -euo pipefail
die() { echo "hosts-run: $*" >&2; exit 1; }
STATE=/tmp/annulus-hosts; if [ "${1:-}" = -s ]; then STATE=$2; shift 2; fi
[ $# -ge 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
[ -e "$STATE/n" ] || [ -e "$STATE/switch.pid" ] || die "no hosts in $STATE (hosts-up.sh first)"
STATE=$(cd "$STATE" && pwd -P); PATH=$PATH:/usr/sbin:/sbin
pid() { local p; p=$(cat "$STATE/$1.pid" 2>/dev/null) && [ -d "/proc/$p" ] || die "no host $1 in $STATE"; echo "$p"; }
in_() { local p; p=$(pid "$1"); shift; nsenter --target "$p" --net --uts --ipc --wd="$PWD" -- "$@"; }
to() { local p; p=$(pid "$1"); shift; exec nsenter --target "$p" --net --uts --ipc --wd="$PWD" -- "$@"; }
port() { echo "p${1#h}"; }
case $1 in
  rate) h=$2 r=$3
    for e in "$h eth0" "switch $(port "$h")"; do set -- $e
      in_ "$1" tc qdisc del dev "$2" root 2>/dev/null || true
      # burst: one 64 KiB segment and a half (0.8 ms of 1 Gbit/s: what a message after a
      # pause may pass unlimited); queue: 20 ms worth
      [ "$r" = none ] || in_ "$1" tc qdisc add dev "$2" root tbf rate "$r" burst 96kb latency 20ms
    done;;
  link) in_ switch ip link set "$(port "$2")" "$3"
    [ "$3" != up ] || for _ in $(seq 50); do in_ "$2" ip -o link show eth0 | grep -q LOWER_UP && break; sleep 0.02; done;;
  drop) # the switch forgets the port: HOST keeps carrier, every packet is lost in silence
    case ${3:-on} in on|off) ;; *) die "drop HOST [on|off]";; esac
    if [ "${3:-on}" = on ]; then in_ switch ip link set "$(port "$2")" nomaster
    else in_ switch ip link set "$(port "$2")" master br0; fi;;
  crash) h=$2; in_ switch ip link set "$(port "$h")" down
    ns=$(readlink "/proc/$(pid "$h")/ns/net"); keep=$(pid "$h")
    for d in /proc/[0-9]*; do p=${d#/proc/}
      [ "$p" = "$keep" ] || [ "$(readlink "$d/ns/net" 2>/dev/null)" != "$ns" ] || kill -9 "$p" 2>/dev/null || true
    done;;
  stat) n=$(cat "$STATE/n")
    for i in $(seq "$n"); do
      a=$(in_ "h$i" cat /proc/net/dev | awk '$1=="eth0:"{print $10, $2}')
      echo "h$i sent ${a% *} received ${a#* }"; done;;
  mpirun) shift
    # bind-to none: each 'host' would bind its first rank to the same core 0.
    # mpi_yield_when_idle: the hosts share the cores, and a host cannot know that.
    to h1 env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 HOSTS_STATE="$STATE" \
      mpirun.openmpi --hostfile "$STATE/hostfile" --mca plm rsh --mca plm_rsh_agent "$STATE/agent" \
        --mca plm_rsh_no_tree_spawn 1 --mca orte_keep_fqdn_hostnames 1 \
        --mca oob_tcp_if_include eth0 --mca btl tcp,self,vader --mca btl_tcp_if_include eth0 --mca pml ob1 \
        --bind-to none --mca mpi_yield_when_idle 1 "$@";;
  mpich-run) shift
    sed 's/ slots=/:/' "$STATE/hostfile" >"$STATE/hostfile.hydra"
    to h1 mpiexec.hydra -launcher ssh -launcher-exec "$STATE/agent" -iface eth0 -f "$STATE/hostfile.hydra" "$@";;
  h[0-9]*|switch) h=$1; shift; [ $# -ge 1 ] || die "no command"; to "$h" "$@";;
  *) die "unknown: $1 (see the head of this file)";;
esac
