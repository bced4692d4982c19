#!/usr/bin/env bash
# usage: scripts/compile.sh CARGO-ARGUMENT...
# Runs cargo and shows progress: cargo's own bar on a terminal, otherwise a line for every twenty crates.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -t 2 ]]; then
  exec cargo "$@"
fi
edges=normal,build
[[ $1 != test ]] || edges=normal,build,dev
total=$(cargo tree --locked --prefix none --edges "$edges" | sed 's/ (.*//' | sort -u | wc -l)
cargo "$@" --quiet --message-format=json-render-diagnostics |
  awk -v total="$total" '
    !/"reason":"compiler-artifact"/ || /"fresh":true/ { next }
    match($0, /"package_id":"[^"]*"/) && !seen[substr($0, RSTART, RLENGTH)]++ && ++count % 20 == 0 {
      print "   compiled " count " of at most " total " crates"; fflush()
    }
    END { if (count % 20) print "   compiled " count " crates: done" }' >&2
