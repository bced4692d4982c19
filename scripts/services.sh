#!/usr/bin/env bash
# usage: scripts/services.sh [--root | --user] [--svp PROGRAM] [--skip STEP]... [NAME...] | --table
# Takes real services from build to upgrade with svp: those of fixtures/services, and mariadb, postgresql and redis.
# Root does it twice: as root, and as an ordinary user created for the run; any other user does it once. Prints a line
# for each step. Leaves nothing behind but the results in target/services.
#   --root   only as root
#   --user   only as an ordinary user
#   --svp    use this svp (default: compile it)
#   --skip   leave out a step, such as docker
#   --table  print the results of all runs so far, as docs/services.md has them
set -euo pipefail
cd "$(dirname "$0")/.."

steps=(build setup run client stop start backup wreck restore upgrade export podman docker)

# --- The part that runs as either user, in $SVP_SERVICES_DIR, which contains svp, the packs and a Debian.

pack=''    # the directory of the service's pack
name=''    # the service's name in fixtures
service='' # its name as an instance

do_build() { svp build -b "$pack" -t "$name" --base debian:12; }
do_setup() { svp setup -b "$pack" -i "$name" -t "$service" >"$scratch/env"; }
do_run() {
  # Unquoted: several options.
  svp run -d --wait=120 ${options[$name]-} "$service"
}
do_client() { "$name.put" && kept; }
do_stop() { svp stop "$service"; }
do_start() { svp start --wait=120 "$service" && kept; }
do_backup() { svp backup "$service" -o "$scratch/backup" --verify && kept; }
do_wreck() {
  "$name.wreck" || return 1
  ! "$name.get" || { echo "wreck: nothing is lost"; return 1; }
}
# A service that did not run before does not run afterwards.
do_restore() {
  svp restore "$service" -i "$scratch/backup" && { running || svp start --wait=120 "$service"; } && kept
}
running() { svp ps -q | grep -qx "$service"; }

# The new image has a file that the old one has not, and the same secrets.
do_upgrade() {
  cp -R "$pack" "$scratch/new" && echo two >"$scratch/new/generation"
  svp setup -b "$scratch/new" -i "$name" -t "$service" --keep-secrets --update-pack >/dev/null &&
    svp upgrade "$service" && [[ $(svp exec "$service" -- cat /service/generation) == two ]] && kept
}

do_export() {
  local format
  for format in kube quadlet systemd; do
    svp export "$service" --format "$format" -o "$scratch/$format" || return 1
    [[ -n $(find "$scratch/$format" -type f -size +100c) ]] || return 1
  done
}
do_podman() { svp save --allow-secrets "$service" | podman load >"$scratch/loaded" && loaded podman; }
# docker before 25 takes only its own archives.
do_docker() {
  svp save --allow-secrets -o docker-archive:- "$service" | docker load >"$scratch/loaded" && loaded docker
}

podman() {
  command podman --root "$PWD/pod/root" --runroot "$PWD/pod/run" --storage-driver overlay --events-backend file \
    --runtime runc --cgroup-manager cgroupfs "$@"
}
docker() { /usr/bin/docker --host "unix://$PWD/docker/sock" "$@"; }

# loaded ENGINE: runs the image that the engine has loaded, until the pack's health command succeeds in it.
loaded() {
  local engine=$1 image id component components health result=1 until=$((SECONDS + 120))
  image=$(sed -n 's/^Loaded image: //p' "$scratch/loaded" | tail -n 1)
  grep -v '%IP' "$scratch/env" >"$scratch/env-file" || true
  mapfile -t components < <(svp query -b "$pack" components)
  health=$(svp query -b "$pack" health)
  # What setup stored may depend on the name that the host had then, as a user of RabbitMQ does.
  hostname=$(svp info --format json "$service" | jq -r '.hostname')
  id=$("$engine" run --detach --network none --hostname "$hostname" --env-file "$scratch/env-file" \
    --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 "$image" "${components[@]:0:1}") || return 1
  for component in "${components[@]:1}"; do
    "$engine" exec --detach "$id" /service/bin/run "$component"
  done
  while ((SECONDS < until)); do
    if "$engine" exec "$id" /bin/sh -c "$health" >"$scratch/health" 2>&1; then
      result=0
      break
    fi
    sleep 1
  done
  ((result == 0)) || { cat "$scratch/health" && "$engine" logs "$id"; } || true
  "$engine" rm --force "$id" >/dev/null
  "$engine" rmi --force "$image" >/dev/null
  return "$result"
}

# kept: waits up to half a minute until the service has what was put there.
kept() {
  local try
  for try in {1..15}; do
    ! "$name.get" >"$scratch/get" 2>&1 || return 0
    sleep 2
  done
  cat "$scratch/get"
  echo "$name: what was stored is not there"
  return 1
}

# step NAME: takes the service through a step, prints a line and the output of a failure, and adds a cell to the row.
step() {
  local began=$SECONDS result='' cell
  if [[ ${SVP_SERVICES_SKIP-} == *" $1 "* ]]; then
    result='skipped' cell=–
  elif [[ $1 == docker && $EUID != 0 ]]; then
    result='not here: dockerd needs root' cell=–
  elif [[ $1 == upgrade ]] && ! svp upgrade --help >/dev/null 2>&1; then
    result='not here: this svp has no upgrade' cell=–
  elif [[ -n $failed && $failed =~ ^(build|setup|run)$ ]]; then
    result="not tried after a failed $failed" cell=–
  elif (set +e && "do_$1") </dev/null >"$scratch/log" 2>&1; then
    result="ok, $((SECONDS - began)) s" cell=✓
  else
    result="FAILED, $((SECONDS - began)) s" cell=✗ failed=$1 failures=$((failures + 1))
  fi
  row+=" $cell |"
  printf '%-16s %-8s %s\n' "$name" "$1" "$result"
  if [[ $cell == ✗ ]]; then
    tail -n 40 "$scratch/log" | sed 's/^/    /'
    svp logs -n 20 "$service" 2>&1 | sed 's/^/    /' || true
  fi
}

# companion NAME: builds and runs a service that another one needs.
companion() {
  svp build -b "packs/$1" -t "$1" --base debian:12 >/dev/null &&
    svp setup -b "packs/$1" -i "$1" -t "svc-$1" >/dev/null && svp run -d --wait=120 "svc-$1"
}

whole_service() {
  local row failed='' step version
  name=$1 service=svc-$1 scratch=$PWD/scratch
  rm -rf "$scratch" && mkdir "$scratch"
  pack=packs/$name
  if [[ -n ${needs[$name]-} ]]; then
    companion "${needs[$name]}" >"$scratch/log" 2>&1 || cat "$scratch/log"
  fi
  row=''
  for step in "${steps[@]}"; do
    step "$step"
  done
  version=$(svp exec "$service" -- dpkg-query -W -f '${Version}' "${package[$name]-$name}" </dev/null 2>/dev/null) ||
    true
  echo "| $name ${version:--} |$row" >"results/$name"
  clear_store
}

# Removes every service and image but the Debian.
clear_store() {
  local all
  all=$(svp ps -aq) || true
  [[ -z $all ]] || svp rm --force --volumes $all >/dev/null 2>&1 || true
  all=$(svp images --format json | jq -r '.[] | "\(.repository):\(.tag)"' | grep -vx 'debian:12') || true
  [[ -z $all ]] || svp rmi $all >/dev/null 2>&1 || true
  svp prune --volumes >/dev/null 2>&1 </dev/null || true
}

inner() {
  local failures=0 service_name pid=''
  trap leave EXIT
  trap 'exit 130' INT TERM HUP PIPE
  cd "$SVP_SERVICES_DIR"
  export PATH=$PWD/bin:$PATH SVP_ROOT=$PWD/store
  . ./cases.sh
  svp import debian.tar -t debian:12 >/dev/null
  ((EUID != 0)) || start_docker
  for service_name in "$@"; do
    whole_service "$service_name"
  done
  echo "services: as $(id -un): $failures steps failed"
  ((failures == 0))
}

start_docker() {
  mkdir docker
  bin/dockerd.sh "$PWD/docker" &
  daemon=$!
  local tries=0
  until docker version >/dev/null 2>&1; do
    ((++tries < 300)) || { tail docker/log >&2 && return 1; }
    sleep 0.2
  done
}

daemon=''
leave() {
  trap '' INT TERM HUP PIPE
  clear_store
  podman rm --all --force --time 0 >/dev/null 2>&1 || true
  if [[ -n $daemon ]]; then
    # Running containers would outlive the daemon.
    local containers
    containers=$(docker ps --all --quiet) || true
    [[ -z $containers ]] || docker rm --force $containers >/dev/null 2>&1 || true
    kill "$daemon" && wait "$daemon" || true
  fi
  if ((EUID != 0)); then
    # Files of containers belong to subordinate ids, and podman's pause process keeps its namespaces.
    podman unshare rm -rf "$PWD/pod" 2>/dev/null || true
    local pause
    pause=$(cat "$XDG_RUNTIME_DIR/libpod/tmp/pause.pid" 2>/dev/null) && kill "$pause" || true
  fi
}

if [[ -n ${SVP_SERVICES_DIR:-} ]]; then
  inner "$@"
  exit
fi

# --- The part that prepares a directory for each of the two users.

table() {
  local kind
  for kind in root user; do
    [[ -d target/services/$kind ]] || continue
    printf '\n| as %s |' "$([[ $kind == root ]] && echo root || echo 'an ordinary user')"
    printf ' %s |' "${steps[@]}"
    printf '\n|---|'
    printf '%.0s---|' "${steps[@]}"
    echo
    cat target/services/"$kind"/*
  done
}

work='' user='' created='' kind=root
clean() {
  trap '' INT TERM HUP PIPE
  [[ -z $work ]] || finish
  [[ -z $created ]] || scripts/ordinary-user.sh remove "$user"
  created=''
}

# prepare: fills a new directory, which has a short name, since podman refuses long paths.
prepare() {
  work=$(mktemp -d "${TMPDIR:-/var/tmp}/svp-s.XXXXXX")
  mkdir "$work"/{home,tmp,bin,packs,results}
  mkdir -m 700 "$work/run"
  install "$program" "$work/bin/svp"
  install scripts/services.sh "$work/bin/services"
  install scripts/dockerd.sh "$work/bin/"
  cp fixtures/services/cases.sh "$work/"
  cp -R fixtures/services/*/ fixtures/packs/{mariadb,postgresql,redis} "$work/packs/"
  cp "$rootfs" "$work/debian.tar"
}

# Keeps the results and removes the directory.
finish() {
  mkdir -p "target/services/$kind"
  cp "$work"/results/* "target/services/$kind/" 2>/dev/null || true
  scripts/discard.sh "$work" || true
  work=''
}

# A function, so that bash has read all of it when it starts.
main() {
  program='' only='' skipped='' names=()
  while (($#)); do
    case $1 in
      --root | --user) only=${1#--} ;;
      --svp) program=${2:?} && shift ;;
      --skip) skipped+=" ${2:?} " && shift ;;
      --table) table && exit ;;
      -*) sed -n '2,10s/^# //p' "$0" >&2 && exit 2 ;;
      *) names+=("${1%/}") ;;
    esac
    shift
  done
  if ((${#names[@]} == 0)); then
    names=(mariadb postgresql redis)
    for pack in fixtures/services/*/; do
      names+=("$(basename "$pack")")
    done
  fi

  if [[ -z $program ]]; then
    scripts/compile.sh build --locked
    program=${CARGO_TARGET_DIR:-target}/debug/svp
  fi
  rootfs=$(scripts/make-base.sh debian)

  trap clean EXIT
  trap 'exit 130' INT TERM HUP PIPE
  result=0
  export TMPDIR=${TMPDIR:-/var/tmp} SVP_SERVICES_SKIP=$skipped
  if ((EUID != 0)) || [[ $only != user ]]; then
    ((EUID == 0)) || kind=user
    prepare
    echo "services: as $(id -un)"
    env HOME="$work/home" TMPDIR="$work/tmp" XDG_RUNTIME_DIR="$work/run" SVP_SERVICES_DIR="$work" \
      bash "$work/bin/services" "${names[@]}" || result=1
    finish
  fi
  if ((EUID == 0)) && [[ $only != root ]]; then
    kind=user
    prepare
    user=svps$$
    created=$(scripts/ordinary-user.sh add "$user")
    chmod 755 "$work"
    chmod -R go+rX "$work/packs" "$work/bin" "$work/cases.sh" "$work/debian.tar"
    chown -R "$user" "$work"
    echo "services: as $user"
    scripts/ordinary-user.sh run "$user" "$work" SVP_SERVICES_DIR="$work" bash "$work/bin/services" "${names[@]}" ||
      result=1
    finish
  fi
  exit "$result"
}
main "$@"
