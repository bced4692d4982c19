#!/usr/bin/env bash
# usage: scripts/discard.sh DIR
# Unmounts and removes what an interrupted run left in DIR, while its last processes may still be ending.
set -euo pipefail
dir=${1:?the directory is missing}
remove=(rm -rf --one-file-system "$dir")
# Files of containers belong to subordinate ids.
((EUID == 0)) || remove=(unshare --user --map-root-user --map-auto "${remove[@]}")
for attempt in {1..10}; do
  if ((EUID == 0)); then
    while IFS= read -r mount; do
      umount -l "$mount" || true
    done < <(awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
  fi
  ! "${remove[@]}" 2>/dev/null || exit 0
  sleep 1
done
echo "discard: can't remove $dir" >&2
exit 1
