#!/usr/bin/env bash
# usage: scripts/ordinary-user.sh NAME
# Makes an ordinary user with subordinate ids, as root, if there is none; says so if it did.
set -euo pipefail
user=${1:?"say whom"}

if ! id "$user" >/dev/null 2>&1; then
  echo "making the user $user"
  useradd --create-home --shell /bin/sh "$user"
fi
for kind in uid gid; do
  grep -q "^$user:" "/etc/sub$kind" 2>/dev/null || {
    first=$(awk -F: '{ end = $2 + $3; if (end > max) max = end } END { print (max > 100000) ? max : 100000 }' \
      "/etc/sub$kind" 2>/dev/null || echo 100000)
    usermod "--add-sub${kind}s" "$first-$((first + 65535))" "$user"
  }
done
