#!/usr/bin/env bash
# Prints a range of 65536 ids, FIRST-LAST, that neither /etc/subuid nor /etc/subgid assigns.
set -euo pipefail
{ cat /etc/subuid /etc/subgid 2>/dev/null || true; } |
  awk -F: 'BEGIN { first = 100000 } { end = $2 + $3; if (end > first) first = end } END { print first "-" first + 65535 }'
