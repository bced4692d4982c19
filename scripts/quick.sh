#!/usr/bin/env bash
# Checks formatting and lints and runs the unit tests. Installs nothing and needs no root.
set -euo pipefail
cd "$(dirname "$0")/.."
echo "quick: cargo fmt"
cargo fmt --check
echo "quick: cargo clippy"
cargo clippy --locked --quiet --all-targets -- -D warnings
echo "quick: unit tests"
cargo test --locked --quiet --lib
