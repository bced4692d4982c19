#!/usr/bin/env bash
# usage: scripts/build-probes.sh
# Builds the probes (probes/) as a static program, which runs in any container, and prints its path.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(uname -m)-unknown-linux-gnu
RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --quiet --release --target "$target" \
  --manifest-path probes/Cargo.toml --target-dir target/probes
echo "$PWD/target/probes/$target/release/svp-probes"
