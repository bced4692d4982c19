#!/usr/bin/env bash
# usage: scripts/static.sh [ARCH]
# Builds the static binary of a release (profile `dist`, gnu target) and verifies that it is not linked dynamically.
set -euo pipefail
cd "$(dirname "$0")/.."
arch=${1:-$(uname -m)}
target=$arch-unknown-linux-gnu
# Keeps the paths of this machine out of the binary.
export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$PWD=. \
  --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
if [[ $arch != "$(uname -m)" ]]; then
  linker=CARGO_TARGET_${target//-/_}_LINKER
  export "${linker^^}=$arch-linux-gnu-gcc"
fi
cargo build --locked --profile dist --target "$target"
binary=target/$target/dist/svp
ls -l "$binary"
linked=$(ldd "$binary" 2>&1 || true)
echo "ldd: $linked"
grep -qE 'statically linked|not a dynamic executable' <<<"$linked"
[[ $arch != "$(uname -m)" ]] || "$binary" --version
