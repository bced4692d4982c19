#!/usr/bin/env bash
# Installs what the demo and the tests use, from the distribution. Does nothing when it is all there.
set -euo pipefail

packages=(
  ca-certificates git gcc libc6-dev jq make python3 util-linux  # the ground
  libssl-dev pkg-config                                         # tests/conformance: ocidir needs OpenSSL
  mmdebstrap debian-archive-keyring busybox-static                                  # base images
  uidmap passt                                                  # user namespaces and their network
  skopeo podman buildah runc umoci docker-registry docker.io    # other people's OCI tools
  strace                                                        # kills svp at chosen system calls
  tmux                                                          # a terminal to type on
  zstd attr acl libcap2-bin openssl apache2-utils               # what layers hold, TLS and passwords
  python3-jsonschema python3-yaml                               # the schemas of OCI and of Kubernetes, and a YAML parser
  catatonit slirp4netns systemd                                 # podman's pods, and the reader of units
  mariadb-client postgresql-client redis-tools                  # clients of the services
)

missing=()
for package in "${packages[@]}"; do
  # Docker's own packages are as good, and Debian's would drive them out.
  [[ $package == docker.io ]] && command -v dockerd >/dev/null && continue
  status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
  [[ $status == ii* ]] || missing+=("$package")
done

if ((${#missing[@]})); then
  if ((EUID == 0)); then
    as_root=()
  elif sudo -n true 2>/dev/null; then
    as_root=(sudo)
  else
    echo "deps: these packages are missing, and only root can install them:" >&2
    echo "  sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  echo "deps: installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

command -v cargo >/dev/null || {
  echo "deps: cargo is missing: install Rust 1.90 or newer from https://rustup.rs" >&2
  exit 1
}

# pasta opens the tun device as the caller; some minimal systems leave it to root alone.
if ((EUID == 0)) && [[ -c /dev/net/tun && $(stat -c %a /dev/net/tun) != 666 ]]; then
  echo "deps: letting ordinary users open /dev/net/tun (chmod 666), for private networks"
  chmod 666 /dev/net/tun
fi
