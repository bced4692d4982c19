#!/usr/bin/env bash
# Checks formatting, lints and the rules for dependencies (deny.toml).
set -euo pipefail
cd "$(dirname "$0")/.."

echo "check: cargo fmt"
cargo fmt --check
cargo fmt --check --manifest-path tests/conformance/Cargo.toml
cargo fmt --check --manifest-path probes/Cargo.toml

echo "check: cargo clippy"
cargo clippy --locked --quiet --all-targets -- -D warnings

deny=$(command -v cargo-deny || true)
if [[ -z $deny ]]; then
  # Built once and cached outside the clone.
  tools=${SVP_DEV_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/svp-dev}
  deny=$tools/bin/cargo-deny
  if [[ ! -x $deny ]]; then
    echo "check: building cargo-deny, once, into $tools"
    # Unoptimised: it compiles sooner, and only runs for a second.
    CARGO_PROFILE_DEV_DEBUG=false \
      cargo install --quiet --debug --locked --root "$tools" --version '^0.18' cargo-deny
  fi
fi
echo "check: cargo deny"
"$deny" --locked check --hide-inclusion-graph bans licenses sources
