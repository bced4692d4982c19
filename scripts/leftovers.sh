#!/usr/bin/env bash
# usage: scripts/leftovers.sh record FILE | compare FILE
# record: notes the users, mounts, processes and files that a run of the tests could leave on this host.
# compare: names what is there now and was not then. In CI that is a failure; elsewhere another program of the host
# may have made it, so it is only told.
set -euo pipefail

# files DIR... TEST...: the entries of the directories that exist, for which find's TEST holds
files() {
  local dirs=()
  while [[ $1 == /* ]]; do
    [[ ! -d $1 ]] || dirs+=("$1")
    shift
  done
  find "${dirs[@]}" -mindepth 1 -maxdepth 1 "$@" | sed 's/^/file /'
}

list() {
  getent passwd | cut -d: -f1 | sed 's/^/user /'
  # Namespaces of network and of users that were bound to files appear here too.
  awk '{ print "mount " $5 }' /proc/self/mountinfo
  local process
  for process in svp pasta pasta.avx2 slirp4netns docker-registry dockerd containerd conmon runc redis-server mariadbd postgres; do
    pgrep -x "$process" | sed "s/^/process $process /" || true
  done
  files /tmp /var/tmp /dev/shm "${XDG_RUNTIME_DIR:-/nonexistent}" -name 'svp*'
  # The caches are documented: target/, Cargo's own, and the one of scripts/make-base.sh.
  files "$HOME" "$HOME/.config" "$HOME/.local" "$HOME/.local/share" \
    ! -name .cache ! -name .cargo ! -name .rustup ! -name '.*history'
}

file=${2:-}
case ${1:-} in
  record)
    mkdir -p "$(dirname "$file")"
    list | sort >"$file"
    ;;
  compare)
    left=$(list | sort | comm -13 "$file" -)
    if [[ -n $left ]]; then
      # What is being killed takes a moment to end.
      sleep 3
      left=$(list | sort | comm -13 "$file" -)
    fi
    [[ -n $left ]] || exit 0
    printf 'test: since the tests began these have appeared on this host:\n%s\n' "$left" >&2
    [[ -z ${CI:-} ]]
    ;;
  *) sed -n '2s/^# //p' "$0" >&2 && exit 2 ;;
esac
