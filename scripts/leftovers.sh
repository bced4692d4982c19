#!/usr/bin/env bash
# usage: scripts/leftovers.sh record FILE | compare FILE
# record: lists the users, mounts, processes and files that a test run could leave on this host.
# compare: prints those that have appeared since. They are a failure only in CI: elsewhere another program may have
# created them.
set -euo pipefail

# files DIR... TEST...: prints the entries of the readable directories that match find's TEST
files() {
  local dirs=()
  while [[ $1 == /* ]]; do
    [[ ! -d $1 || ! -r $1 ]] || dirs+=("$1")
    shift
  done
  find "${dirs[@]}" -mindepth 1 -maxdepth 1 "$@" | sed 's/^/file /'
}

list() {
  getent passwd | cut -d: -f1 | sed 's/^/user /'
  # Includes network and user namespaces that are bound to files.
  awk '{ print "mount " $5 }' /proc/self/mountinfo
  local process
  for process in svp pasta pasta.avx2 slirp4netns docker-registry dockerd containerd conmon runc redis-server mariadbd postgres; do
    pgrep -x "$process" | sed "s/^/process $process /" || true
  done
  # Also the default names of Rust's tempfile and of mktemp.
  files /tmp /var/tmp /dev/shm "${XDG_RUNTIME_DIR:-/nonexistent}" '(' -name 'svp*' -o -name '.tmp*' -o -name 'tmp.*' ')'
  # All except the documented caches: target/, Cargo's, and the one of scripts/make-base.sh.
  files "$HOME" "$HOME/.config" "$HOME/.local" "$HOME/.local/share" /var/lib/containers \
    ! -name .cache ! -name .cargo ! -name .rustup ! -name '.*history'
}

file=${2:-}
case ${1:-} in
  record)
    mkdir -p "$(dirname "$file")"
    list | sort >"$file"
    ;;
  compare)
    # Killed processes need time to end, especially on a busy machine.
    for _ in {1..15}; do
      left=$(list | sort | comm -13 "$file" -)
      [[ -n $left ]] || exit 0
      sleep 2
    done
    printf 'test: appeared on this host since the tests began:\n%s\n' "$left" >&2
    [[ -z ${CI:-} ]]
    ;;
  *) sed -n '2s/^# //p' "$0" >&2 && exit 2 ;;
esac
