#!/usr/bin/env bash
# hosts-up.sh N RATE [STATE_DIR]
#
# N hosts h1..hN on one machine: each has its own network, UTS and IPC namespace
# (own address 10.77.0.i, own host name, own SysV shared memory) and a network
# cable (veth) to a switch (a bridge in a namespace of its own). RATE limits each
# cable in both directions (tc tbf): 100mbit, 1gbit, 10gbit, or 'none'. The
# machine's own network is not touched: no route leads there or back. Files
# (/tmp, home) are shared by all hosts, as over NFS.
#
# STATE_DIR (default /tmp/annulus-hosts): pids, hostfile, the mpirun agent.
# Environment: LAB_SUBNET=10.77.0   first three parts of the addresses
#              LAB_CC=cubic         TCP congestion control in the hosts ('' : the machine's own)
#              LAB_MTU=1500         MTU of the cables (9000: fewer packets)
#              LAB_SLOTS=1          slots per host in the hostfile
#              LAB_APT=0            do not apt-get install iproute2 when it is missing
# Needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN), iproute2, util-linux, a kernel with
# veth, bridge and sch_tbf. Safe to call again (an old set in STATE_DIR is
# removed first). Every holder process ends by itself after 6 hours.
set -euo pipefail
die() { echo "hosts-up: $*" >&2; exit 1; }
HERE=$(cd "$(dirname "$0")" && pwd -P)
[ $# -ge 2 ] || { sed -n '2,20s/^# \{0,1\}//p' "$0"; exit 2; }
N=$1 RATE=$2; mkdir -p "${3:-/tmp/annulus-hosts}"; STATE=$(cd "${3:-/tmp/annulus-hosts}" && pwd -P)
NET=${LAB_SUBNET:-10.77.0} CC=${LAB_CC-cubic} MTU=${LAB_MTU:-1500}
case $N in ''|*[!0-9]*) die "N is a number";; esac; [ "$N" -ge 1 ] && [ "$N" -le 32 ] || die "N is 1..32"
PATH=$PATH:/usr/sbin:/sbin
if ! command -v ip >/dev/null || ! command -v tc >/dev/null; then
  [ "${LAB_APT:-1}" = 1 ] || die "missing: iproute2"
  { DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends iproute2 ||
    { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends iproute2; }; } >"$STATE/apt.log" 2>&1 ||
    die "apt-get install iproute2 failed (see $STATE/apt.log)"
fi
unshare --net --uts --ipc true 2>/dev/null || die "this sandbox allows no network namespaces"
"$HERE/hosts-down.sh" "$STATE" >/dev/null

hold() { # hold NAME : a process that keeps the three namespaces of host NAME alive
  setsid unshare --net --uts --ipc sh -c 'hostname "$1"; echo $$ >"$2"; exec sleep 21600' hold "$1" "$STATE/$1.pid.new" </dev/null >/dev/null 2>&1 &
  for _ in $(seq 100); do [ -s "$STATE/$1.pid.new" ] && break; sleep 0.02; done
  [ -s "$STATE/$1.pid.new" ] || die "no namespaces for $1"
  mv "$STATE/$1.pid.new" "$STATE/$1.pid"
}
in_() { local h=$1; shift; nsenter --target "$(cat "$STATE/$h.pid")" --net --uts --ipc -- "$@"; }
rc=0; trap 'rc=$?; [ $rc = 0 ] || "$HERE/hosts-down.sh" "$STATE" >/dev/null; exit $rc' EXIT

mac() { printf '02:00:00:4d:00:%02x' "$1"; }
hold switch
in_ switch ip link add br0 type bridge
in_ switch ip link set br0 mtu "$MTU" up
in_ switch ip link set lo up
: >"$STATE/hostfile"; : >"$STATE/hosts"
for i in $(seq "$N"); do
  h=h$i; hold "$h"
  in_ "$h" ip link add eth0 mtu "$MTU" address "$(mac "$i")" type veth peer name "p$i" netns "$(cat "$STATE/switch.pid")"
  in_ switch ip link set "p$i" mtu "$MTU" up
  in_ switch ip link set "p$i" master br0
  in_ "$h" ip link set lo up
  in_ "$h" ip addr add "$NET.$i/24" dev eth0
  in_ "$h" ip link set eth0 up
  [ -z "$CC" ] || in_ "$h" sysctl -qw net.ipv4.tcp_congestion_control="$CC" 2>/dev/null || true
  echo "$h slots=${LAB_SLOTS:-1}" >>"$STATE/hostfile"; echo "$NET.$i $h" >>"$STATE/hosts"
done
# fixed neighbours: no ARP in a measurement, none to expire when a cable is cut
for i in $(seq "$N"); do for j in $(seq "$N"); do
  [ "$i" = "$j" ] || echo "neigh replace $NET.$j lladdr $(mac "$j") dev eth0 nud permanent"; done | in_ "h$i" ip -batch -; done
printf '%s\n' "$N" >"$STATE/n"; printf '%s\n' "$NET" >"$STATE/subnet"
for i in $(seq "$N"); do # until every cable has carrier
  for _ in $(seq 50); do in_ "h$i" ip -o link show eth0 | grep -q LOWER_UP && break; sleep 0.02; done; done
[ "$RATE" = none ] || for i in $(seq "$N"); do "$HERE/hosts-run.sh" -s "$STATE" rate "h$i" "$RATE"; done

# mpirun's stand-in for ssh: AGENT [options] HOST COMMAND...
cat >"$STATE/agent" <<'AGENT'
#!/bin/sh
S=$(dirname "$0")
while :; do case $1 in -*) shift;; *) break;; esac; done
h=$1; shift
p=$(cat "$S/$h.pid" 2>/dev/null) && [ -d "/proc/$p" ] || { echo "agent: host $h is not up" >&2; exit 255; }
exec nsenter --target "$p" --net --uts --ipc --wd="$PWD" -- sh -c "$*"
AGENT
chmod +x "$STATE/agent"
echo "hosts-up: h1..h$N at $NET.1..$NET.$N, rate $RATE, state $STATE"
