#!/usr/bin/env bash
# A static release binary on the gnu target, and the proof that nothing is linked at run time.
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
