#!/usr/bin/env bash
# usage: scripts/dockerd.sh DIR
# Runs dockerd with all its files in DIR, without a network for its containers; it listens at DIR/sock.
set -euo pipefail
exec dockerd --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/pid" --host "unix://$1/sock" \
  --storage-driver=vfs --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
  </dev/null >"$1/log" 2>&1
