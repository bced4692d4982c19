#!/usr/bin/env bash
# usage: scripts/deps.sh demo|test
# Prepares this host for `make demo` or `make test`: installs packages and, for an ordinary user, applies the settings
# that need an administrator. Without the privilege to do so, it changes nothing and prints the commands. Quick and
# silent if nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

demo_packages=(
  ca-certificates gcc libc6-dev make util-linux       # compilation, and the scripts themselves
  mmdebstrap debian-archive-keyring                   # the base image, if Docker Hub is unreachable
  uidmap passt procps                                 # user namespaces, their network, pkill
  skopeo mariadb-client redis-tools                   # a reader of the images, clients of the services
)
test_packages=(
  "${demo_packages[@]}"
  git jq python3                                                # the scripts and the test oracles
  libssl-dev pkg-config                                         # tests/conformance: ocidir needs OpenSSL
  busybox-static                                                # the small base image
  podman buildah runc umoci docker-registry docker.io bubblewrap  # other OCI tools and containers
  strace                                                        # kills svp at chosen system calls
  tmux                                                          # an interactive terminal
  zstd attr acl libcap2-bin openssl apache2-utils  # contents of layers, TLS and passwords
  python3-jsonschema python3-yaml                               # the schemas of OCI and Kubernetes, a YAML parser
  catatonit slirp4netns systemd iproute2                        # podman's pods, the verifier of units, networks
  postgresql-client                                             # a client of the services
)
case ${1:-} in
  demo) packages=("${demo_packages[@]}") ;;
  test) packages=("${test_packages[@]}") ;;
  *) sed -n '2s/^# //p' "$0" >&2 && exit 2 ;;
esac

fail() {
  printf 'deps: %s\n' "$@" >&2
  exit 1
}

command -v cargo >/dev/null || fail "cargo is missing: install Rust 1.90 or newer from https://rustup.rs"
command -v apt-get >/dev/null || fail "this is neither Debian nor Ubuntu: install the equivalents of these packages, then run the scripts: ${packages[*]}"

# The commands for an administrator, one per element.
commands=()

missing=()
for package in "${packages[@]}"; do
  # Docker's own packages work too, and conflict with Debian's.
  [[ $package == docker.io ]] && command -v dockerd >/dev/null && continue
  status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
  [[ $status == ii* ]] || missing+=("$package")
done
if ((${#missing[@]})); then
  commands+=("apt-get update" "apt-get install -y --no-install-recommends ${missing[*]}")
fi

setting() { [[ $(cat "/proc/sys/${1//.//}" 2>/dev/null) == "$2" ]]; }
! setting user.max_user_namespaces 0 || commands+=("sysctl -w user.max_user_namespaces=15000")
if ((EUID != 0)); then
  ! setting kernel.unprivileged_userns_clone 0 || commands+=("sysctl -w kernel.unprivileged_userns_clone=1")
  ! setting kernel.apparmor_restrict_unprivileged_userns 1 ||
    commands+=("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
  # A uid without a passwd entry has no name; both files accept numbers too.
  name=$(id -un 2>/dev/null) || name=$EUID
  has_subids() { grep -qE "^($name|$EUID):[0-9]+:[0-9]{5,}" "/etc/sub$1" 2>/dev/null; }
  if ! has_subids uid || ! has_subids gid; then
    range=$(scripts/free-subids.sh)
    line=$name:${range%-*}:65536
    has_subids uid || commands+=("echo $line >>/etc/subuid")
    has_subids gid || commands+=("echo $line >>/etc/subgid")
  fi
fi
# pasta opens the tun device as the caller; some minimal systems restrict it to root. The demo works without it.
if [[ $1 == test && ! -e /dev/net/tun ]]; then
  commands+=("mkdir -p /dev/net" "mknod -m 666 /dev/net/tun c 10 200")
elif [[ $1 == test && $(stat -c %a /dev/net/tun) != 666 ]]; then
  commands+=("chmod 666 /dev/net/tun")
fi

if ((${#commands[@]})); then
  if ((EUID == 0)); then
    as_root=(env)
  elif sudo -n true 2>/dev/null; then
    as_root=(sudo env)
  else
    echo "deps: \`make $1\` needs changes to this host that $name may not make. Run these commands as root:" >&2
    printf '  %s\n' "${commands[@]}" >&2
    exit 1
  fi
  for command in "${commands[@]}"; do
    echo "deps: $command"
    log=$(mktemp)
    "${as_root[@]}" DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes bash -c "$command" >"$log" 2>&1 || {
      cat "$log" >&2
      rm -f "$log"
      fail "\`$command\` failed: its output is above"
    }
    rm -f "$log"
  done
fi

# Try it: containers and unusual hosts refuse user namespaces for reasons that none of these settings shows.
if ((EUID != 0)); then
  all_ids=(--map-auto)
fi
refusal=$(unshare --user --map-root-user ${all_ids[@]+"${all_ids[@]}"} true 2>&1) ||
  fail "$(id -un 2>/dev/null || echo $EUID) can't create a user namespace on this host: $refusal" \
    "run \`svp check\` for the cause; see docs/ci.md for containers"
