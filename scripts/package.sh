#!/usr/bin/env bash
# usage: scripts/package.sh BINARY DIR [ARCH [NATIVE]]
# Creates DIR/svp-VERSION-ARCH.tar.gz and DIR/svp_VERSION_DEBARCH.deb from a static svp. NATIVE is an svp that runs on
# this host, if BINARY is for another architecture. The same binary and SOURCE_DATE_EPOCH (default: the time of the
# last commit) give the same bytes.
set -euo pipefail
binary=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
arch=${3:-$(uname -m)}
native=$(realpath "${4:-$binary}")
cd "$(dirname "$0")/.."
umask 022
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH LC_ALL=C
case $arch in
  x86_64) debian=amd64 ;;
  aarch64) debian=arm64 ;;
  *) echo "package: unknown architecture $arch: add its Debian name to $0" >&2 && exit 2 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The tarball: the program, with its completions and manual pages beside it.
name=svp-$version-$arch
tree=$work/$name
mkdir -p "$tree/completions" "$tree/man/man1"
install "$binary" "$tree/svp"
"$native" man "$tree/man/man1"
"$native" completions bash >"$tree/completions/svp.bash"
"$native" completions zsh >"$tree/completions/_svp"
"$native" completions fish >"$tree/completions/svp.fish"
install -m 644 LICENSE README.md CHANGELOG.md "$tree"
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -c "$name" |
  gzip -9n >"$work/$name.tar.gz"
mv "$work/$name.tar.gz" "$out/"

root=$work/deb
DESTDIR=$root PREFIX=/usr scripts/install.sh "$binary" --man-from "$native"
gzip -9n "$root"/usr/share/man/man1/*.1
gzip -9n <CHANGELOG.md >"$root/usr/share/doc/svp/changelog.gz"
mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<EOF
Package: svp
Version: $version
Architecture: $debian
Maintainer: The svp authors
Installed-Size: $(du -sk --apparent-size "$root/usr" | cut -f 1)
Section: admin
Priority: optional
Recommends: uidmap, passt
Description: $(sed -n 's/^description = "\(.*\)"/\1/p' Cargo.toml | cut -d : -f 1)
 A servicepack is a directory of executable scripts that knows how to install,
 configure and run one service. svp turns it into OCI images and runs them.
 .
 uidmap gives an ordinary user all ids of a container, passt a private network.
EOF
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$root" "$out/svp_${version}_$debian.deb" >/dev/null
echo "package: $out/$name.tar.gz $out/svp_${version}_$debian.deb"
