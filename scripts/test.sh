#!/usr/bin/env bash
# usage: scripts/test.sh [--soak] [FILTER...]
# The whole suite. Root runs it twice: as root, and as the ordinary user svptest, who is made for it. Anyone
# else runs it as themselves. --soak runs the long tests instead (those marked #[ignore]).
set -euo pipefail
cd "$(dirname "$0")/.."
# Whatever the caller's is: the other user reads what is made here.
umask 022
repo=$PWD
user=svptest

arguments=()
if [[ ${1:-} == --soak ]]; then
  shift
  arguments+=(--ignored --test-threads=1)
fi
arguments+=("$@")

echo "test: building"
cargo test --locked --no-run --quiet
cargo test --locked --no-run --message-format=json 2>/dev/null |
  jq -r 'select(.executable != null and .profile.test) | [.target.kind[0], .target.name, .executable] | @tsv' \
    >target/test-binaries
cargo build --locked --quiet --manifest-path tests/conformance/Cargo.toml --target-dir target/conformance
export SVP_CONFORMANCE=$repo/target/conformance/debug/svp-conformance
for base in busybox debian machine; do
  scripts/make-base.sh "$base" >/dev/null
done
export SVP_TEST_CACHE=${SVP_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/svp-dev}

echo "test: as $(id -un)"
cargo test --locked --quiet --no-fail-fast -- "${arguments[@]}"

if ((EUID != 0)); then
  echo "test: all passed as $(id -un); run it as root to have it run as root too"
  exit
fi

scripts/ordinary-user.sh "$user"

# The user gets a copy of the repository and the test binaries, readable whatever the umask and wherever the
# clone is, mounted where the binaries were built to find it: in a mount namespace of its own.
# podman makes an image's name of a path, and takes neither capitals nor long paths.
copy=/var/tmp/svp-ut.$$
mkdir "$copy"
trap 'rm -rf "$copy"' EXIT
mkdir "$copy/repo" "$copy/cache" "$copy/t" "$copy/r"
git ls-files -z --cached --others --exclude-standard | tar --null -T - -c --ignore-failed-read | tar -x -C "$copy/repo"
while IFS=$'\t' read -r _ _ executable; do
  install -D "$executable" "$copy/repo/${executable#"$repo"/}"
done <target/test-binaries
install target/debug/svp "$copy/repo/target/debug/svp"
install "$SVP_CONFORMANCE" "$copy/svp-conformance"
cp "$SVP_TEST_CACHE"/{busybox,debian,machine}.tar "$copy/cache/"
chmod -R u=rwX,go=rX "$copy"
chmod 700 "$copy/r"
chown -R "$user" "$copy/repo" "$copy/cache" "$copy/t" "$copy/r"

run_as_user() {
  # In the new mount namespace: hide what the user may not enter, then put the copy in the repository's place.
  local hidden=$repo
  while ! runuser -u "$user" -- test -x "$(dirname "$hidden")"; do
    hidden=$(dirname "$hidden")
  done
  if [[ $hidden != "$repo" ]]; then
    mount -t tmpfs -o mode=755 tmpfs "$hidden"
    mkdir -p "$repo"
  fi
  mount --bind "$copy/repo" "$repo"
  cd "$repo"
  local failed=() kind name executable
  while IFS=$'\t' read -r kind name executable; do
    echo "     Running $name ($kind) as $user"
    runuser -u "$user" -- env -i HOME="$(getent passwd "$user" | cut -d: -f6)" USER="$user" LOGNAME="$user" \
      PATH="$PATH_OF_USER" LANG=C.UTF-8 TMPDIR="$copy/t" XDG_RUNTIME_DIR="$copy/r" CI="${CI:-}" \
      CARGO_MANIFEST_DIR="$repo" SVP_TEST_CACHE="$copy/cache" SVP_CONFORMANCE="$copy/svp-conformance" \
      SVP_SOAK_ROUNDS="${SVP_SOAK_ROUNDS:-100}" \
      "$executable" --quiet "${arguments[@]}" </dev/null || failed+=("$name")
  done <"$copy/repo/target/test-binaries"
  if ((${#failed[@]})); then
    echo "test: as $user these failed: ${failed[*]}" >&2
    return 1
  fi
}

cp target/test-binaries "$copy/repo/target/"
export PATH_OF_USER=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export repo copy user
echo "test: as $user"
unshare --mount --propagation private bash -euo pipefail -c "
  $(declare -f run_as_user)
  $(declare -p arguments)
  run_as_user"
echo "test: all passed, as root and as $user"
