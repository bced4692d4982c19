#!/usr/bin/env bash
# usage: scripts/probes.sh [--svp PROGRAM] [--all]
# Runs the probes (probes/) in the containers of svp, bubblewrap, docker and podman, as root and as an ordinary user
# created for the run, and prints how many are open in each, and which in svp's. As an ordinary user it runs them as that user only. Leaves
# the results in target/probes/results.
#   --svp    use this svp (default: compile it)
#   --all    print every probe
set -euo pipefail
cd "$(dirname "$0")/.."

# --- The part that runs as either user, in $SVP_PROBES_DIR, which contains svp, the probes and a busybox.

make_pack() {
  mkdir -p pack/bin
  cp bin/svp-probes pack/
  cp host/env pack/env
  cat >pack/bin/query <<'END'
#!/bin/sh
case "$1" in
os) echo busybox/1 ;;
env)
    # svp takes no other output of the script: a letter for each probe.
    set -a && . /service/env
    echo PROBES="$(/service/svp-probes | cut -f3 | cut -c1 | tr -d '\n')"
    ;;
esac
END
  cat >pack/bin/build <<'END'
#!/bin/sh
set -a && . /service/env
mkdir -p /results && /service/svp-probes >/results/build
END
  cat >pack/bin/run <<'END'
#!/bin/sh
set -a && . /service/env
/service/svp-probes >/results/run && : >/results/ready
exec sleep 100000
END
  chmod 755 pack/bin/*
}

of_svp() {
  make_pack
  svp import busybox.tar -t busybox:1 >log 2>&1
  svp query -b pack env | sed 's/^PROBES=//' | fold -w 1 | sed 's/^o$/open/; s/^c$/closed/; s/^n$/none/' >letters
  bin/svp-probes --list | paste - letters >"results/svp query"
  # The same probes again, on the image, would take as long as the build.
  sed -i 's/^env)/never)/' pack/bin/query
  svp build -b pack -t probes-base --base busybox:1 >>log 2>&1
  svp setup -i probes-base -t probes >>log 2>&1
  svp run -d probes >>log 2>&1
  local tries=0
  until svp exec probes -- test -e /results/ready; do
    ((++tries < 120)) || { svp logs probes >&2 && return 1; }
    sleep 0.5
  done
  svp exec probes -- cat /results/build >"results/svp build"
  svp exec probes -- cat /results/run >"results/svp run"
  svp exec probes -- sh -c 'set -a && . /service/env && exec /service/svp-probes' >"results/svp exec"
  svp rm --force --volumes probes >>log 2>&1
}

of_bubblewrap() {
  mkdir -p rootfs && tar -C rootfs -xf busybox.tar
  mkdir -p rootfs/{tmp,proc,dev}
  # The strictest of the usual ways: new namespaces of every kind, no capabilities.
  (set -a && . host/env && bwrap --unshare-all --die-with-parent --new-session --cap-drop ALL --bind rootfs / \
    --proc /proc --dev /dev --tmpfs /tmp --ro-bind bin/svp-probes /svp-probes /svp-probes) >results/bubblewrap
}

of_podman() {
  podman() {
    command podman --root "$PWD/pod/root" --runroot "$PWD/pod/run" --storage-driver overlay --events-backend file \
      --runtime runc --cgroup-manager cgroupfs "$@"
  }
  podman import busybox.tar probes >>log 2>&1
  podman run --rm --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 --env-file host/env \
    -v "$PWD/bin/svp-probes:/svp-probes:ro" probes /svp-probes >results/podman
}

# In the shell that ends the daemon.
start_docker() {
  mkdir -p docker
  bin/dockerd.sh "$PWD/docker" &
  daemon=$!
  local tries=0
  until docker version >/dev/null 2>&1; do
    ((++tries < 300)) || { tail docker/log >&2 && return 1; }
    sleep 0.2
  done
}

docker() { /usr/bin/docker --host "unix://$PWD/docker/sock" "$@"; }

of_docker() {
  docker import busybox.tar probes >>log 2>&1
  docker run --rm --network none --env-file host/env -v "$PWD/bin/svp-probes:/svp-probes:ro" probes /svp-probes \
    >results/docker
}

daemon='' host=''
leave() {
  trap '' INT TERM HUP PIPE
  svp rm --force --volumes probes >/dev/null 2>&1 || true
  command podman --root "$PWD/pod/root" --runroot "$PWD/pod/run" rm --all --force --time 0 >/dev/null 2>&1 || true
  if ((EUID != 0)); then
    podman unshare rm -rf "$PWD/pod" 2>/dev/null || true
    local pause
    pause=$(cat "$XDG_RUNTIME_DIR/libpod/tmp/pause.pid" 2>/dev/null) && kill "$pause" || true
  fi
  [[ -z $daemon ]] || { kill "$daemon" && wait "$daemon" || true; }
  [[ -z $host ]] || { kill "$host" && wait "$host" 2>/dev/null || true; }
}

inner() {
  cd "$SVP_PROBES_DIR"
  export PATH=$PWD/bin:$PATH SVP_ROOT=$PWD/store
  trap leave EXIT
  trap 'exit 130' INT TERM HUP PIPE
  mkdir host
  SVP_PROBES_SECRET=secret bin/svp-probes --host "$PWD/host" &
  host=$!
  until [[ -s host/env ]]; do sleep 0.1; done
  local place failed=0
  for place in svp bubblewrap podman docker; do
    if [[ $place == docker ]]; then
      ((EUID == 0)) || continue
      start_docker || { failed=1 && continue; }
    fi
    (set -e && "of_$place") || { echo "probes: $place failed: see above" >&2 && cat log >&2 && failed=1; }
  done
  return "$failed"
}

if [[ -n ${SVP_PROBES_DIR:-} ]]; then
  inner
  exit
fi

# --- The part that prepares a directory for each of the two users, and prints the table.

table() {
  python3 - "$1" <<'END'
import os, sys
results, everything = "target/probes/results", sys.argv[1] == "all"
columns, cells, order = [], {}, []
for user in ("root", "user"):
    for place in ("svp build", "svp query", "svp run", "svp exec", "bubblewrap", "docker", "podman"):
        path = f"{results}/{user}/{place}"
        if not os.path.exists(path):
            continue
        columns.append((user, place))
        for line in open(path, errors="replace"):
            group, name, result = line.rstrip("\n").split("\t")[:3]
            if (group, name) not in cells:
                cells[group, name] = {}
                order.append((group, name))
            cells[group, name][user, place] = result
def row(head, cells):
    print(f"| {head} | " + " | ".join(map(str, cells)) + " |")

def header(head):
    row(head, [f"{place} ({user})" for user, place in columns])
    print("|---|" + "---|" * len(columns))

ours = [column for column in columns if column[1].startswith("svp")]
groups = list(dict.fromkeys(group for group, name in order))
count = lambda group: [sum(cells[probe].get(column) == "open" for probe in order if group in ("", probe[0]))
                       for column in columns]
header(f"open, of {len(order)} probes")
for group in groups:
    row(group, count(group))
row("all", count(""))
print()
mark = {"open": "open", "closed": "·", "none": "–", None: "?"}
header("every probe" if everything else "open in a container of svp")
for probe in order:
    got = cells[probe]
    if everything or any(got.get(column) == "open" for column in ours):
        row(": ".join(probe), [mark[got.get(column)] for column in columns])
print()
for probe in order:
    got = cells[probe]
    if any(got.get(column) == "open" for column in ours):
        refused = sorted({place for user, place in columns
                          if (user, place) not in ours and got.get((user, place)) == "closed"})
        if refused:
            print(f"svp allows what {', '.join(refused)} refuses: {': '.join(probe)}")
END
}

work='' user='' created='' kind=root
clean() {
  trap '' INT TERM HUP PIPE
  [[ -z $work ]] || finish
  [[ -z $created ]] || scripts/ordinary-user.sh remove "$user"
  created=''
}

finish() {
  mkdir -p "target/probes/results/$kind"
  cp "$work"/results/* "target/probes/results/$kind/" 2>/dev/null || true
  scripts/discard.sh "$work" || true
  work=''
}

prepare() {
  rm -rf "target/probes/results/$kind"
  work=$(mktemp -d "${TMPDIR:-/var/tmp}/svp-p.XXXXXX")
  mkdir "$work"/{home,tmp,bin,results}
  mkdir -m 700 "$work/run"
  install "$program" "$work/bin/svp"
  install "$probes" scripts/dockerd.sh "$work/bin/"
  install scripts/probes.sh "$work/bin/probes"
  cp "$rootfs" "$work/busybox.tar"
}

main() {
  program='' show=open
  while (($#)); do
    case $1 in
      --svp) program=${2:?} && shift ;;
      --all) show=all ;;
      *) sed -n '2,8s/^# //p' "$0" >&2 && exit 2 ;;
    esac
    shift
  done
  if [[ -z $program ]]; then
    scripts/compile.sh build --locked
    program=${CARGO_TARGET_DIR:-target}/debug/svp
  fi
  probes=$(scripts/build-probes.sh)
  rootfs=$(scripts/make-base.sh busybox)

  trap clean EXIT
  trap 'exit 130' INT TERM HUP PIPE
  local result=0
  export TMPDIR=${TMPDIR:-/var/tmp}
  ((EUID == 0)) || kind=user
  prepare
  env HOME="$work/home" TMPDIR="$work/tmp" XDG_RUNTIME_DIR="$work/run" SVP_PROBES_DIR="$work" \
    bash "$work/bin/probes" || result=1
  finish
  if ((EUID == 0)); then
    kind=user
    prepare
    user=svpp$$
    created=$(scripts/ordinary-user.sh add "$user")
    chmod 755 "$work"
    chown -R "$user" "$work"
    scripts/ordinary-user.sh run "$user" "$work" SVP_PROBES_DIR="$work" bash "$work/bin/probes" || result=1
    finish
  fi
  table "$show"
  exit "$result"
}
main "$@"
