#!/usr/bin/env bash
# hosts-down.sh [STATE_DIR]   (default /tmp/annulus-hosts)
# Ends what hosts-up.sh made: every process in those namespaces, then the
# namespaces (cables, switch and limits go with them). Safe to call again.
set -uo pipefail
STATE=${1:-/tmp/annulus-hosts}; [ -d "$STATE" ] || { echo "hosts-down: nothing in $STATE"; exit 0; }
self=$(readlink /proc/self/ns/net) gone=0
for f in "$STATE"/h[0-9]*.pid "$STATE/switch.pid"; do
  [ -e "$f" ] || continue
  p=$(cat "$f"); ns=$(readlink "/proc/$p/ns/net" 2>/dev/null || true)
  # only a holder that hosts-up.sh started, and never this machine's own namespace
  if [ -n "$ns" ] && [ "$ns" != "$self" ] && tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -q '^sleep 21600'; then
    for d in /proc/[0-9]*; do
      [ "$(readlink "$d/ns/net" 2>/dev/null)" = "$ns" ] && kill -9 "${d#/proc/}" 2>/dev/null && gone=$((gone + 1))
    done
  fi
  rm -f "$f"
done
rm -f "$STATE"/{n,subnet,hostfile,hostfile.hydra,hosts,agent} "$STATE"/*.pid.new
echo "hosts-down: $gone processes ended, $STATE is empty of hosts"
