#!/usr/bin/env bash
# Builds a static release binary for the gnu target and verifies that it is not linked dynamically.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(uname -m)-unknown-linux-gnu
RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --target "$target"
binary=target/$target/release/svp
ls -l "$binary"
linked=$(ldd "$binary" 2>&1 || true)
echo "ldd: $linked"
grep -qE 'statically linked|not a dynamic executable' <<<"$linked"
"$binary" --version
