#!/usr/bin/env bash
# A redis service from its pack and a real Debian, each step shown. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d "${TMPDIR:-/tmp}/svp-demo.XXXXXX")
clean() {
  svp rm --force mysvc >/dev/null 2>&1 || true
  if ((EUID != 0)); then
    # What the packs' scripts made belongs to subordinate ids.
    unshare --user --map-root-user --map-auto rm -rf --one-file-system "$work" 2>/dev/null || true
  fi
  rm -rf --one-file-system "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

if [[ -t 1 ]]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
number=0
step() {
  number=$((number + 1))
  printf '\n%s%d. %s%s\n' "$bold" "$number" "$1" "$plain"
  shift
  (($# == 0)) || printf '   %s\n' "$@"
}
# Shows a command as the reader would type it, then runs it.
show() {
  printf '%s   $ %s%s\n' "$dim" "$*" "$plain"
  "$@"
}

step "Compile svp" "One Rust program, no C libraries."
show cargo build --locked --quiet
export PATH=$PWD/target/debug:$PATH
export SVP_ROOT=$work/store
out=$work/out

step "Look at the pack" "A directory of scripts. bin/query says what it needs; svp runs it in a sandbox."
show ls fixtures/packs/redis fixtures/packs/redis/bin
for key in os secrets env; do
  show svp query -b fixtures/packs/redis "$key"
done
show svp lint fixtures/packs/redis

step "Find a Debian" "The pack wants debian/12: from Docker Hub where it can be reached, else made here by mmdebstrap."
base=()
if skopeo --command-timeout 15s inspect --raw docker://docker.io/library/debian:12 >/dev/null 2>&1; then
  echo "   Docker Hub answers: svp will pull docker.io/library/debian:12 by itself."
else
  echo "   Docker Hub does not answer: any root file system will do."
  rootfs=$(scripts/make-base.sh debian)
  show svp import "$rootfs" -t debian:12
  base=(--base debian:12)
fi

step "Build the image of every redis" \
  "svp pulls the base, runs bin/build base in a sandbox and keeps what changed as a layer." \
  "stdout is the manifest digest and nothing else; all the rest goes to stderr."
show svp build -b fixtures/packs/redis -t redis "${base[@]}" --oci-dir "$out"

step "Set up one redis" \
  "svp makes the secrets, runs bin/build setup in the image and prints the environment that its users need." \
  "%IP stays as it is: nobody knows the address before the service runs."
show svp setup -b fixtures/packs/redis -i redis -t mysvc --oci-dir "$out"

step "Look at the images"
show svp images
show svp inspect mysvc

step "Let others read them" "An OCI image layout: skopeo, podman, umoci, containerd and registries take it."
show skopeo inspect "oci:$out:redis:latest"
show skopeo inspect --config "oci:$out:mysvc:latest"

step "Run it" "A process of svp's own keeps it running. Its address is its alone, so its port is redis's own."
show svp run -d --wait mysvc
show svp ps
show svp client mysvc set greeting "hello from inside"
echo "   … and from this host, with what svp env prints:"
eval "$(svp env mysvc --format shell)"
export REDISCLI_AUTH=$REDIS_PASSWORD
show redis-cli -h "$REDIS_HOST" -p "$REDIS_PORT" get greeting

step "Lose the data and get it back" "A restore goes into a fresh copy, which takes the old one's place when it is well."
show svp backup mysvc -o "$work/backup.zst"
show svp client mysvc flushall
show svp restore mysvc -i "$work/backup.zst"
show svp client mysvc get greeting | grep -x "hello from inside"
show svp stop mysvc
show svp rm --volumes mysvc

step "Done" "Both images were in $SVP_ROOT and $out; the demo removes them now." \
  "Next: svp new mypack"
