#!/usr/bin/env bash
# usage: scripts/demo.sh [--svp PROGRAM] [--base ROOTFS.tar]
# Builds and runs two services, redis and mariadb, on a real Debian, showing each step. Leaves nothing behind.
#   --svp   use this svp (default: compile it)
#   --base  use this Debian (default: pull or make one)
# Runs as an ordinary user. Started by root, only the compilation and the search for a Debian run as root: the rest runs
# as the user $SVP_DEMO_USER, by default a user that the demo creates for this run and removes at its end.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -t 1 ]]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
number=${SVP_DEMO_STEP:-0}
step() {
  number=$((number + 1))
  printf '\n%s%d. %s%s\n' "$bold" "$number" "$1" "$plain"
  shift
  (($# == 0)) || printf '   %s\n' "$@"
}
# Shows a command as the reader would type it, then runs it.
show() {
  printf '%s   $ %s%s\n' "$dim" "${*@Q}" "$plain" | sed "s/'\([][A-Za-z0-9_.,:=@%+/-]*\)'/\1/g"
  "$@"
}

# The part that runs as the ordinary user, in $SVP_DEMO_DIR, which contains svp and the packs.
demo() {
  trap leave EXIT
  trap 'exit 130' INT TERM HUP PIPE
  cd "$SVP_DEMO_DIR"
  export PATH=$PWD/bin:$PATH SVP_ROOT=$PWD/store XDG_CONFIG_HOME=$PWD/config
  # Works also where pasta can't run.
  mkdir -p config/svp
  printf '[network]\nfallback = "host"\n' >config/svp/config.toml

  step "Look at a pack" "A directory of scripts. bin/query prints what the pack needs; svp runs it in a sandbox."
  show ls packs/redis packs/redis/bin
  for key in os secrets env; do
    show svp query -b packs/redis "$key"
  done
  show svp lint packs/redis

  local base=()
  if [[ -n ${SVP_DEMO_BASE:-} ]]; then
    show svp import "$SVP_DEMO_BASE" -t debian:12
    base=(--base debian:12)
  fi
  step "Build the image that all redis instances share, and one for mariadb" \
    "svp takes the base image, runs bin/build base in a sandbox and writes the changed files as a layer." \
    "stdout has the manifest digest only; everything else goes to stderr."
  show svp build -b packs/redis -t redis "${base[@]}" --oci-dir out
  show svp build -b packs/mariadb -t mariadb "${base[@]}" --oci-dir out

  step "Set up one of each" \
    "svp generates the secrets, runs bin/build setup in the image and prints the environment that clients need." \
    "%IP is not replaced yet: the address is unknown until the service runs."
  show svp setup -b packs/redis -i redis -t cache
  show svp setup -b packs/mariadb -i mariadb -t books

  step "Look at the images" "skopeo, podman, umoci, containerd and registries read them from an OCI image layout."
  show svp images
  show skopeo inspect --format '{{.Digest}} {{.Os}}/{{.Architecture}}' oci:out:redis:latest
  show skopeo inspect --format '{{.Digest}} {{.Os}}/{{.Architecture}}' oci:out:mariadb:latest

  step "Run both" "A monitor process keeps each running, at a private address, with its standard port."
  show svp run -d --wait cache
  show svp run -d --wait books
  show svp ps

  step "Use them" "With the pack's client, inside the container…"
  show svp client cache set greeting "hello from inside"
  show svp client books -e "create table shelf (title varchar(80)); insert into shelf values (\"Dubliners\")"
  echo "   … and from this host, with the host's clients and the output of svp env:"
  show svp env cache
  show svp env books
  eval "$(svp env cache --format shell)"
  eval "$(svp env books --format shell)"
  export REDISCLI_AUTH=$REDIS_PASSWORD MYSQL_PWD=$MYSQL_PASSWORD
  show redis-cli -h "$REDIS_HOST" -p "$REDIS_PORT" get greeting
  show mariadb -h "$MYSQL_HOST" -P "$MYSQL_PORT" -u "$MYSQL_USER" "$MYSQL_DATABASE" -e "select title from shelf"

  step "Back them up" \
    "zstd -dc prints the output of the pack's bin/backup. --verify first restores it into a throwaway copy."
  show svp backup cache -o cache.zst --verify
  show svp backup books -o books.zst
  show ls -s cache.zst books.zst

  step "Destroy the data"
  show svp client cache flushall
  show svp client books -e "drop table shelf"

  step "Restore it" "A restore goes into a fresh copy, which replaces the service once it is healthy."
  show svp restore cache -i cache.zst
  show svp restore books -i books.zst
  show redis-cli -h "$REDIS_HOST" -p "$REDIS_PORT" get greeting | has "hello from inside"
  show mariadb -h "$MYSQL_HOST" -P "$MYSQL_PORT" -u "$MYSQL_USER" "$MYSQL_DATABASE" -e "select title from shelf" |
    has Dubliners

  step "Stop and remove them" "Volumes are kept without --volumes."
  show svp stop cache books
  show svp rm --volumes cache books
  step "Done" "As $(id -un), in $PWD, which the demo removes now." "Next: svp new mypack"
}

leave() {
  trap '' INT TERM HUP PIPE
  local services
  services=$(svp ps -aq 2>/dev/null) || true
  # Unquoted: one word per service.
  [[ -z $services ]] || svp rm --force --volumes $services >/dev/null 2>&1 || true
}

# Prints standard input, and fails unless one of its lines equals $1.
has() {
  local text
  text=$(cat)
  printf '%s\n' "$text"
  grep -qx "$1" <<<"$text" || { echo "demo: the data was not restored: no $1" >&2; return 1; }
}

if [[ -n ${SVP_DEMO_DIR:-} ]]; then
  demo
  exit
fi

program='' rootfs=''
while (($#)); do
  case $1 in
    --svp) program=${2:?} ;;
    --base) rootfs=${2:?} ;;
    *) sed -n '2,7s/^# //p' "$0" >&2 && exit 2 ;;
  esac
  shift 2
done

work='' user='' created=''
clean() {
  trap '' INT TERM HUP PIPE
  if ((EUID != 0)); then
    # Files that the packs' scripts created belong to subordinate ids.
    unshare --user --map-root-user --map-auto rm -rf --one-file-system "$work" 2>/dev/null || true
  fi
  rm -rf --one-file-system "$work"
  [[ -z $created ]] || scripts/ordinary-user.sh remove "$user"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP PIPE
# On a disk: two services may exceed a /tmp in memory.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/svp-demo.XXXXXX")

if [[ -z $program ]]; then
  step "Compile svp" "One Rust program, no C libraries. Takes minutes the first time, seconds later."
  show scripts/compile.sh build --locked
  program=${CARGO_TARGET_DIR:-target}/debug/svp
fi

if [[ -z $rootfs ]]; then
  step "Find a Debian" "The packs need debian/12: from Docker Hub if it is reachable, otherwise made by mmdebstrap."
  if skopeo --command-timeout 15s inspect --raw docker://docker.io/library/debian:12 >/dev/null 2>&1; then
    echo "   Docker Hub is reachable: svp will pull docker.io/library/debian:12."
  else
    echo "   Docker Hub is unreachable: making a root file system."
    rootfs=$(scripts/make-base.sh debian)
  fi
fi

mkdir "$work/home" "$work/tmp" "$work/bin"
mkdir -m 700 "$work/run"
install "$program" "$work/bin/svp"
cp -R fixtures/packs "$work/packs"
install scripts/demo.sh "$work/bin/demo"
# A copy, since the user may not be able to read the original.
[[ -z $rootfs ]] || cp "$rootfs" "$work/debian.tar"
export SVP_DEMO_DIR=$work SVP_DEMO_STEP=$number SVP_DEMO_BASE=${rootfs:+debian.tar}
as=()
if ((EUID == 0)); then
  user=${SVP_DEMO_USER:-svpdemo$$}
  created=$(scripts/ordinary-user.sh add "$user")
  [[ -z $created ]] ||
    printf '\n   The user %s was created for the remaining steps and will be removed at the end.\n' "$user"
  chmod 755 "$work"
  chmod -R go+rX "$work/packs"
  chown -R "$user" "$work"
  as=(setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups --inh-caps=-all --
    env -u XDG_DATA_HOME -u XDG_CONFIG_HOME -u XDG_CACHE_HOME HOME="$work/home" USER="$user" LOGNAME="$user"
    XDG_RUNTIME_DIR="$work/run" TMPDIR="$work/tmp")
fi
"${as[@]}" bash "$work/bin/demo"
