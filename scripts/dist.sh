#!/usr/bin/env bash
# usage: scripts/dist.sh
# Creates the release files in target/dist: SHA256SUMS and, for each architecture that this host can build for, a .deb
# and a tarball (static binary, completions, manual pages).
set -euo pipefail
cd "$(dirname "$0")/.."
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
out=target/dist
rm -f "$out"/svp-*.tar.gz "$out"/svp_*.deb "$out/SHA256SUMS"
host=$(uname -m)

scripts/static.sh "$host"
native=target/$host-unknown-linux-gnu/dist/svp
scripts/package.sh "$native" "$out" "$host"

for arch in x86_64 aarch64; do
  [[ $arch != "$host" ]] || continue
  target=$arch-unknown-linux-gnu
  linker=$arch-linux-gnu-gcc
  if ! { rustup target list --installed 2>/dev/null || true; } | grep -qx "$target"; then
    echo "dist: $arch is left out: its Rust target is not installed (rustup target add $target)"
  elif ! command -v "$linker" >/dev/null; then
    echo "dist: $arch is left out: its linker is not installed (apt-get install gcc-${arch/_/-}-linux-gnu)"
  else
    scripts/static.sh "$arch"
    scripts/package.sh "target/$target/dist/svp" "$out" "$arch" "$native"
  fi
done
# Verifies that the packaged program runs.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dpkg-deb -x "$out"/svp_*_"$(dpkg --print-architecture)".deb "$work"
"$work/usr/bin/svp" --version

(cd "$out" && sha256sum svp-*.tar.gz svp_*.deb >SHA256SUMS && cat SHA256SUMS)
