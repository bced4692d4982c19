#!/usr/bin/env bash
# usage: scripts/install.sh BINARY [--man-from OTHER]
# Installs svp, its completions, manual pages and licence below $DESTDIR$PREFIX (default /usr/local).
#   --man-from  an svp that runs on this host, if BINARY is for another architecture
set -euo pipefail
binary=$(realpath "$1")
native=$binary
[[ ${2:-} != --man-from ]] || native=$(realpath "$3")
cd "$(dirname "$0")/.."
prefix=${PREFIX:-/usr/local}
# Not every shell expands the tilde in PREFIX=~/.local.
prefix=${prefix/#\~\//$HOME/}
to=${DESTDIR:-}$prefix
zsh=$to/share/zsh/site-functions
# Debian's zsh reads the completions of packages from here.
[[ $prefix != /usr ]] || zsh=$to/share/zsh/vendor-completions
umask 022

pages=$(mktemp -d)
trap 'rm -rf "$pages"' EXIT
"$native" man "$pages"
"$native" completions bash >"$pages/svp"
"$native" completions zsh >"$pages/_svp"
"$native" completions fish >"$pages/svp.fish"

install -D "$binary" "$to/bin/svp"
install -D -m 644 -t "$to/share/man/man1" "$pages"/*.1
install -D -m 644 -t "$to/share/bash-completion/completions" "$pages/svp"
install -D -m 644 -t "$zsh" "$pages/_svp"
install -D -m 644 -t "$to/share/fish/vendor_completions.d" "$pages/svp.fish"
install -D -m 644 -T LICENSE "$to/share/doc/svp/copyright"
