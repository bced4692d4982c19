#!/usr/bin/env bash
# Draws docs/images/terminal.svg from a real run: builds, sets up, runs, uses and backs up a redis on a real Debian, in
# a tmux terminal, with the commands as a reader would type them.
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in tmux python3 mmdebstrap; do
  command -v "$tool" >/dev/null || { echo "pictures: $tool is missing: run make deps" >&2; exit 1; }
done
scripts/compile.sh build --locked --release
base=$(scripts/make-base.sh debian)
work=$(mktemp -d /var/tmp/svp-pictures.XXXXXX)
server=svp-pictures-$$
clean() {
  trap '' INT TERM HUP PIPE
  tmux -L "$server" kill-server 2>/dev/null || true
  SVP_ROOT=$work/store "$work/bin/svp" rm --force --volumes mysvc >/dev/null 2>&1 || true
  if ((EUID != 0)); then
    # Files that the pack's scripts created belong to subordinate ids.
    unshare --user --map-root-user --map-auto rm -rf --one-file-system "$work" 2>/dev/null || true
  fi
  rm -rf --one-file-system "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP PIPE
mkdir -p "$work/bin" "$work/home"
cp target/release/svp "$work/bin/svp"
cp -R fixtures/packs/redis "$work/redis"
export SVP_ROOT=$work/store HOME=$work/home
"$work/bin/svp" import --progress quiet "$base" -t debian:12 >/dev/null

cd "$work"
PS1='$ ' PATH=$work/bin:$PATH TERM=xterm-256color tmux -L "$server" -f /dev/null new-session -d -x 96 -y 60 'bash --norc --noprofile'
pane() { tmux -L "$server" capture-pane -p "$@"; }
sleep 1
# Set the prompt interactively: bash may override the inherited one.
tmux -L "$server" send-keys "PS1='\\[\\e[1;32m\\]\$\\[\\e[0m\\] '; clear" Enter
sleep 1
# type_command COMMAND: types it and waits for the next prompt, for at most five minutes.
prompts=1
type_command() {
  tmux -L "$server" send-keys -l -- "$1"
  tmux -L "$server" send-keys Enter
  prompts=$((prompts + 1))
  local until=$((SECONDS + 300))
  while (($(pane | grep -c '^\$') < prompts)); do
    ((SECONDS < until)) || { pane >&2; echo "pictures: no prompt after: $1" >&2; exit 1; }
    sleep 0.3
  done
}
# -q, since apt's output would fill the picture.
type_command 'svp -q build -b redis -t redis --base debian:12'
type_command 'svp -q setup -b redis -i redis -t mysvc'
type_command 'svp run -d --wait mysvc'
type_command 'svp ps'
type_command 'svp client mysvc set greeting hello'
type_command 'svp backup mysvc -o mysvc.zst --verify'
type_command 'svp stop mysvc'
# Drops the empty prompt at the end.
captured=$(pane -e | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' | sed '$d')
cd - >/dev/null
mkdir -p docs/images
python3 scripts/terminal-svg.py "svp builds, sets up and runs a redis" <<<"$captured" >docs/images/terminal.svg
echo "pictures: docs/images/terminal.svg"
