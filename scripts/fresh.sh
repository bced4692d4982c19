#!/usr/bin/env bash
# usage: scripts/fresh.sh [--user] TARGET...
# Runs make with each TARGET (demo, test) in turn in a new root file system: Debian's minbase, Rust and a clone of HEAD.
#   --user  as an ordinary user without sudo; root first sets up packages and subordinate ids, with the commands that
#           the targets themselves print
# Needs root. The root file system is removed at the end; this host is not changed.
set -euo pipefail
cd "$(dirname "$0")/.."

as_user=''
if [[ ${1:-} == --user ]]; then
  as_user=yes
  shift
fi
(($#)) || { sed -n '2s/^# //p' "$0" >&2 && exit 2; }
((EUID == 0)) || { echo "fresh: run it as root: only root can enter a new root file system" >&2; exit 1; }

root=$(mktemp -d /var/tmp/svp-fresh.XXXXXX)
trap 'rm -rf --one-file-system "$root"' EXIT
trap 'exit 130' INT TERM HUP PIPE

echo "fresh: making a Debian in $root"
mmdebstrap --quiet --variant=minbase --include=ca-certificates,make,git bookworm "$root" >"$root.log" 2>&1 ||
  { cat "$root.log" >&2; rm -f "$root.log"; exit 1; }
rm -f "$root.log"
# Use the host's package sources, proxy and name servers.
cp /etc/resolv.conf "$root/etc/"
grep -lrs Acquire /etc/apt/apt.conf.d | xargs -r -I{} cp {} "$root/etc/apt/apt.conf.d/"
if compgen -G '/etc/apt/sources.list.d/*' >/dev/null; then
  cp -a /etc/apt/sources.list.d/. "$root/etc/apt/sources.list.d/"
fi
[[ ! -s /etc/apt/sources.list ]] || cp /etc/apt/sources.list "$root/etc/apt/"
rust=$(rustc --print sysroot)
mkdir -p "$root/opt/rust" "$root/opt/cargo"
cp -a "$rust/." "$root/opt/rust/"
# Copy Cargo's configuration and its cached crates.
cp -a "${CARGO_HOME:-$HOME/.cargo}"/{config.toml,registry} "$root/opt/cargo/" 2>/dev/null || true
git clone --quiet --no-hardlinks . "$root/srv/svp"

cat >"$root/srv/inside.sh" <<'INSIDE'
set -euo pipefail
mkdir -p /proc /sys /dev /tmp
mount -t proc proc /proc
umount -l /mnt
cd /srv/svp
export PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
export CARGO_HOME=/opt/cargo CARGO_TERM_COLOR=never
unset SVP_ROOT SVP_TEST_CACHE XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME XDG_STATE_HOME XDG_RUNTIME_DIR
as=()
if [[ -n $AS_USER ]]; then
  useradd --create-home --shell /bin/bash carol
  chown -R carol /srv/svp /opt/cargo
  as=(setpriv --reuid=carol --regid="$(id -g carol)" --init-groups --inh-caps=-all env HOME=/home/carol USER=carol LOGNAME=carol)
  # useradd may have assigned subordinate ids; remove them, to test the commands that the scripts print.
  sed -i '/^carol:/d' /etc/subuid /etc/subgid
fi
for target; do
  if [[ -n $AS_USER ]]; then
    echo "fresh: output of make $target as an unprivileged user:"
    if "${as[@]}" make "$target" >/tmp/advice 2>&1 </dev/null; then
      echo "fresh: make $target passed without them"
      rm -f /tmp/advice
      continue
    fi
    cat /tmp/advice
    sed -n 's/^  //p' /tmp/advice >/tmp/commands
    echo "fresh: running these commands as root"
    DEBIAN_FRONTEND=noninteractive bash -euo pipefail /tmp/commands >/tmp/typed 2>&1 || { cat /tmp/typed; exit 1; }
    rm -f /tmp/advice /tmp/commands /tmp/typed
  fi
  echo "fresh: make $target"
  "${as[@]}" make "$target" </dev/null
done
echo "fresh: all passed; users, and files in /tmp, /var/tmp and the home directories:"
getent passwd | awk -F: '$3 >= 1000 { print $1 }'
find /tmp /var/tmp /root /home -mindepth 1 -maxdepth 2 ! -name '.bash*' ! -name .profile
INSIDE

# pivot_root, not chroot: the kernel refuses to create a user namespace in a chroot. The new root must be a mount.
export AS_USER=$as_user root
unshare --mount --pid --fork --kill-child --propagation private bash -euo pipefail -c '
  mount --bind "$root" "$root"
  cd "$root"
  mount --rbind /sys sys
  mount --rbind /dev dev
  pivot_root . mnt
  exec bash /srv/inside.sh "$@"' bash "$@"
