#!/usr/bin/env bash
# usage: scripts/ordinary-user.sh add NAME | remove NAME | run NAME DIR [VARIABLE=VALUE]... PROGRAM [ARGUMENT]...
# Root's helper for demo and tests. add: creates an ordinary user with subordinate ids, or assigns subordinate ids to an
# existing user NAME; prints "created" if it created the user. remove: kills the processes of NAME and removes the user,
# the home directory and the subordinate ids. Only a caller to which add printed "created" may remove. run: runs a
# program as NAME with DIR/home, DIR/tmp and DIR/run as home, temporary and runtime directory.
set -euo pipefail
usage() { sed -n '2s/^# //p' "$0" >&2 && exit 2; }
action=${1:-}
user=${2:-}
[[ -n $user ]] || usage

run() {
  local dir=$1
  shift
  exec setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups --inh-caps=-all -- \
    env -u XDG_DATA_HOME -u XDG_CONFIG_HOME -u XDG_CACHE_HOME HOME="$dir/home" USER="$user" LOGNAME="$user" \
    XDG_RUNTIME_DIR="$dir/run" TMPDIR="$dir/tmp" "$@"
}
if [[ $action == run && -n ${4:-} ]]; then
  run "${@:3}"
fi

# useradd, usermod and userdel refuse to run concurrently, and two callers must not pick the same range.
exec {lock}>/run/lock/svp-ordinary-user
flock "$lock"

add() {
  local kind created=''
  if ! getent passwd "$user" >/dev/null; then
    useradd --create-home --shell /bin/sh --comment 'svp tests' "$user"
    created=yes
  fi
  for kind in uid gid; do
    if ! grep -q "^$user:" "/etc/sub$kind" 2>/dev/null; then
      usermod "--add-sub${kind}s" "$(scripts/free-subids.sh)" "$user"
    fi
  done
  [[ -z $created ]] || echo created
}

remove() {
  getent passwd "$user" >/dev/null || return 0
  local until=$((SECONDS + 10))
  while pkill -KILL -u "$user" && ((SECONDS < until)); do sleep 0.1; done
  # userdel complains about the mail spool that useradd may not have created.
  userdel --remove "$user" 2> >(grep -v 'mail spool' >&2)
}

cd "$(dirname "$0")/.."
case $action in
  add | remove) "$action" ;;
  *) usage ;;
esac
