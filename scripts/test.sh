#!/usr/bin/env bash
# usage: scripts/test.sh [--soak | --shuffle | --alone] [FILTER...]
# Runs the whole suite. Root runs it twice: as root, and as the ordinary user $SVP_TEST_USER (default svptest), created
# for this run unless it exists. Any other user runs it once, as that user.
#   --soak     run the long tests instead (those marked #[ignore])
#   --shuffle  run the tests in a random order and print its seed; SVP_TEST_SEED repeats an order
#   --alone    run each test that FILTER selects in its own process, to show that no test depends on another
set -euo pipefail
cd "$(dirname "$0")/.."
# Override the caller's umask: the ordinary user must be able to read these files.
umask 022
repo=$PWD
user=${SVP_TEST_USER:-svptest}

arguments=() alone='' bootstrap=''
case ${1:-} in
  --soak)
    arguments+=(--ignored --test-threads=1)
    shift
    ;;
  --shuffle)
    # The test harness shuffles only with RUSTC_BOOTSTRAP. If Cargo saw it, Cargo would recompile all crates.
    bootstrap=1
    seed=${SVP_TEST_SEED:-$RANDOM}
    echo "test: random order; SVP_TEST_SEED=$seed repeats it"
    arguments+=(-Z unstable-options --shuffle-seed "$seed")
    shift
    ;;
  --alone)
    alone=yes
    shift
    ;;
esac
arguments+=("$@")
# Many tests mostly wait.
threads=$(nproc)
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((threads < 4 ? 4 : threads))}

# As root, podman keeps a cache of blob locations here, whatever --root says. Remove it only if these tests create it.
podman_cache=/var/lib/containers/cache
if ((EUID != 0)) || [[ -e $podman_cache ]]; then
  podman_cache=''
fi

# Removes the user and the directories that this run created, however it ends.
copy='' created='' temporary=''
clean() {
  trap '' INT TERM HUP PIPE
  [[ -z $podman_cache ]] || rm -rf --one-file-system "$podman_cache"
  [[ -z $temporary ]] || scripts/discard.sh "$temporary" || true
  [[ -z $copy ]] || scripts/discard.sh "$copy" || true
  [[ -z $created ]] || scripts/ordinary-user.sh remove "$user"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP PIPE

# Prepare everything that tests use before the first one runs.
scripts/leftovers.sh record target/before-the-tests
if ((EUID == 0)); then
  created=$(scripts/ordinary-user.sh add "$user")
fi
echo "test: compiling svp and its tests"
scripts/compile.sh test --locked --no-run
cargo test --locked --no-run --message-format=json 2>/dev/null |
  jq -r 'select(.executable != null and .profile.test) | [.target.kind[0], .target.name, .executable] | @tsv' \
    >target/test-binaries
cargo build --locked --quiet --manifest-path tests/conformance/Cargo.toml --target-dir target/conformance
export SVP_CONFORMANCE=$repo/target/conformance/debug/svp-conformance
SVP_PROBES=$(scripts/build-probes.sh)
export SVP_PROBES
for base in busybox debian machine; do
  scripts/make-base.sh "$base" >/dev/null
done
export SVP_TEST_CACHE=${SVP_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/svp-dev}

# Runs one test binary with the arguments of this run; with --alone, one process per test.
run_binary() {
  local executable=$1 listed test failed=0
  if [[ -z $alone ]]; then
    "${as[@]}" ${bootstrap:+env RUSTC_BOOTSTRAP=1} "$executable" --quiet "${arguments[@]}" </dev/null
    return
  fi
  listed=$("${as[@]}" "$executable" --list --format terse "${arguments[@]}" </dev/null)
  while IFS= read -r test; do
    [[ $test == *': test' ]] || continue
    test=${test%: test}
    echo "alone: $test"
    "${as[@]}" "$executable" --quiet --exact "$test" </dev/null || failed=1
  done <<<"$listed"
  return "$failed"
}

# Runs all test binaries, each with the prefix `as`. The tests' temporary directory must be empty afterwards.
run_all() {
  local failed=() kind name executable
  while IFS=$'\t' read -r kind name executable; do
    echo "     Running $name ($kind)"
    run_binary "$executable" || failed+=("$name")
  done <target/test-binaries
  if ((${#failed[@]})); then
    echo "test: failed: ${failed[*]}" >&2
    return 1
  fi
  if [[ -n $(ls -A "$TMPDIR") ]]; then
    echo "test: the tests left files in their temporary directory:" >&2
    ls -lA "$TMPDIR" >&2
    return 1
  fi
}

echo "test: as $(id -un)"
# As cargo test sets it.
export CARGO_MANIFEST_DIR=$repo
# A short path: those of the sockets below it are limited to 107 bytes.
temporary=/tmp/svp-t.$$
mkdir "$temporary"
chmod 1777 "$temporary"
export TMPDIR=$temporary
as=() result=0
run_all || result=1

scripts/discard.sh "$temporary" || true
temporary='' && unset TMPDIR

if ((EUID != 0)); then
  scripts/leftovers.sh compare target/before-the-tests || result=1
  ((result == 0)) || exit 1
  echo "test: all passed as $(id -un); run it as root to test as root too"
  exit
fi

# The user gets a copy of the repository and the test binaries, readable whatever the umask and the location of the
# clone, mounted at the path that is compiled into the binaries, in a private mount namespace.
# The path is short and lower-case, since podman derives an image's name from it.
copy=/var/tmp/svp-ut.$$
mkdir "$copy"
mkdir "$copy/repo" "$copy/cache" "$copy/t" "$copy/r"
git ls-files -z --cached --others --exclude-standard | tar --null -T - -c --ignore-failed-read | tar -x -C "$copy/repo"
while IFS=$'\t' read -r _ _ executable; do
  install -D "$executable" "$copy/repo/${executable#"$repo"/}"
done <target/test-binaries
install target/debug/svp "$copy/repo/target/debug/svp"
install "$SVP_CONFORMANCE" "$copy/svp-conformance"
install "$SVP_PROBES" "$copy/svp-probes"
cp "$SVP_TEST_CACHE"/{busybox,debian,machine}.tar "$copy/cache/"
chmod -R u=rwX,go=rX "$copy"
chmod 700 "$copy/r"
chown -R "$user" "$copy/repo" "$copy/cache" "$copy/t" "$copy/r"

run_as_user() {
  # In the new mount namespace: cover the directory that the user may not enter, and mount the copy over the repository.
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
  export TMPDIR=$copy/t
  as=(runuser -u "$user" -- env -i HOME="$(getent passwd "$user" | cut -d: -f6)" USER="$user" LOGNAME="$user"
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TMPDIR="$TMPDIR"
    XDG_RUNTIME_DIR="$copy/r" CI="${CI:-}" RUST_TEST_THREADS="$RUST_TEST_THREADS"
    CARGO_MANIFEST_DIR="$repo" SVP_TEST_CACHE="$copy/cache" SVP_CONFORMANCE="$copy/svp-conformance"
    SVP_PROBES="$copy/svp-probes" SVP_SOAK_ROUNDS="${SVP_SOAK_ROUNDS:-100}")
  run_all
}

cp target/test-binaries "$copy/repo/target/"
export repo copy user alone bootstrap
echo "test: as $user"
unshare --mount --propagation private bash -euo pipefail -c "
  $(declare -f run_binary run_all run_as_user)
  $(declare -p arguments)
  run_as_user" || result=1
clean
copy='' created=''
scripts/leftovers.sh compare target/before-the-tests || result=1
((result == 0)) || exit 1
echo "test: all passed, as root and as $user"
