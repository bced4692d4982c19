#!/usr/bin/env bash
# Measures svp and its peers on this machine, in one run. Needs hyperfine.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v hyperfine >/dev/null || {
  echo "bench: hyperfine is missing: apt-get install hyperfine" >&2
  exit 1
}
cargo build --locked --quiet --profile dist
svp=$PWD/target/dist/svp
# buildah rejects upper-case letters in the path of a layout.
work=${TMPDIR:-/tmp}/svp-bench.$$
mkdir -p "$work/context"
trap 'rm -rf --one-file-system "$work"' EXIT
export SVP_ROOT=$work/store

base=$(scripts/make-base.sh busybox)
"$svp" import --progress quiet "$base" -t busybox >/dev/null
umoci init --layout "$work/layout"
umoci new --image "$work/layout:base"
umoci raw add-layer --image "$work/layout:base" "$base"
buildah=(buildah --root "$work/b" --runroot "$work/br" --storage-driver vfs)
"${buildah[@]}" pull -q "oci:$work/layout:base" >/dev/null
printf 'FROM oci:%s:base\nRUN true\n' "$work/layout" >"$work/Containerfile"

echo "# start-up"
hyperfine -N --warmup 3 "$svp --version" 'skopeo --version' 'umoci --version' 'buildah --version'

echo "# build of a pack with a trivial script, busybox base"
hyperfine --warmup 1 \
  "$svp build --progress quiet -b fixtures/packs/hello -t hello --base busybox --network none" \
  "buildah --root $work/b --runroot $work/br --storage-driver vfs bud -q --isolation chroot -f $work/Containerfile $work/context"
