#!/usr/bin/env bash
# usage: scripts/make-base.sh debian|busybox|machine
# Makes a root file system as a tar archive, once, and prints its path.
#   debian   a minimal bookworm, by mmdebstrap from the Debian archive
#   busybox  the static busybox of this host with links for all its applets
#   machine  trixie with systemd, podman 5 and the user ann: bootable, and the source of quadlet's generator
# The archives are cached in $SVP_TEST_CACHE, else $XDG_CACHE_HOME/svp-dev, else ~/.cache/svp-dev.
set -euo pipefail

cache=${SVP_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/svp-dev}
name=${1:?"the name is missing: debian, busybox or machine"}
tar=$cache/$name.tar
export SOURCE_DATE_EPOCH=1735689600

if [[ -s $tar ]]; then
  echo "$tar"
  exit
fi
mkdir -p "$cache"
# Concurrent tests request the same archive.
exec {lock}>"$cache/$name.lock"
flock "$lock"
if [[ -s $tar ]]; then
  echo "$tar"
  exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# minimal SUITE OPTION...: makes a minimal Debian
minimal() {
  local suite=$1
  shift
  echo "make-base: mmdebstrap $suite (minutes, once)" >&2
  mmdebstrap --quiet --variant=minbase --format=tar \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --aptopt='APT::Sandbox::User "root"' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$@" "$suite" "$work/root.tar" >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    echo "make-base: mmdebstrap failed; see its output above" >&2
    exit 1
  }
}

debian() {
  minimal bookworm --include=usr-is-merged
}

machine() {
  local packages=(
    systemd systemd-sysv dbus dbus-user-session libpam-systemd            # boot, and systemd of the user
    podman crun netavark aardvark-dns nftables catatonit passt uidmap     # podman and its dependencies
    iproute2 ca-certificates
  )
  # These would change settings of the host's kernel, or wait for a missing terminal.
  local unwanted=(systemd-sysctl systemd-modules-load console-getty getty@ systemd-resolved systemd-timesyncd)
  minimal trixie --include="$(IFS=, && echo "${packages[*]}")" \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --customize-hook='echo machine >"$1/etc/hostname"; : >"$1/etc/machine-id"' \
    --customize-hook='chroot "$1" useradd --create-home --shell /bin/sh ann' \
    --customize-hook='mkdir -p "$1/var/lib/systemd/linger"; : >"$1/var/lib/systemd/linger/ann"' \
    --customize-hook="chroot \"\$1\" systemctl mask ${unwanted[*]/%/.service}"
}

busybox() {
  local root=$work/root applet
  install -d -m 755 "$root"/{bin,dev,etc,proc,sbin,sys,usr,usr/bin,usr/sbin,var,var/log,run,home}
  install -d -m 700 "$root/root"
  install -d -m 1777 "$root/tmp"
  install -m 755 /bin/busybox "$root/bin/busybox"
  for applet in $(/bin/busybox --list); do
    [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
  done
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
  printf 'ID=busybox\nNAME=BusyBox\n' >"$root/etc/os-release"
  chmod 644 "$root"/etc/*
  tar -C "$root" --sort=name --numeric-owner --owner=0 --group=0 --mtime="@$SOURCE_DATE_EPOCH" \
    -cf "$work/root.tar" .
}

case $name in
  debian | busybox | machine) "$name" ;;
  *)
    echo "make-base: unknown base: $name; use debian, busybox or machine" >&2
    exit 2
    ;;
esac
# Copy to the cache's file system first: only a rename within one file system is atomic.
cp "$work/root.tar" "$cache/$name.tar.new"
chmod 644 "$cache/$name.tar.new"
mv "$cache/$name.tar.new" "$tar"
echo "$tar"
