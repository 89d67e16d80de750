#!/usr/bin/env bash
# Installs the system packages that Reeve's build or tests need and that are missing; says which.
# Usage: deps.sh build|demo|test|bench|torture. Does nothing when all are there. Written for Debian 12, 13 and Ubuntu 24.04.
set -euo pipefail

# command (or file) that must be there : package that brings it
build=(cc:build-essential protoc:protobuf-compiler mold:mold)
bench=("${build[@]}" busybox:busybox-static etcd:etcd-server)
demo=("${build[@]}" curl:curl pgrep:procps)
test=("${demo[@]}" ip:iproute2 nft:nftables busybox:busybox-static docker-registry:docker-registry
    etcd:etcd-server etcdctl:etcd-client qemu-system-x86_64:qemu-system-x86
    containerd:containerd /usr/lib/cni/ptp:containernetworking-plugins
    nginx:nginx-light redis-server:redis-server pg_lsclusters:postgresql /usr/sbin/criu:criu)

torture=("${test[@]}" faketime:faketime mkfs.ext4:e2fsprogs fsfreeze:util-linux)

case "${1:-build}" in
build) wanted=("${build[@]}") ;;
demo) wanted=("${demo[@]}") ;;
test) wanted=("${test[@]}") ;;
bench) wanted=("${bench[@]}") ;;
torture) wanted=("${torture[@]}") ;;
*) echo "usage: deps.sh build|demo|test|bench|torture" >&2; exit 64 ;;
esac

PATH="$PATH:/usr/sbin:/sbin"
missing=()
for pair in "${wanted[@]}"; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done

# The newest kubectl that the distribution has, if the tests can use it: 1.30 or newer. Else they say what they do.
distribution_kubectl() {
    local package version
    for package in kubectl kubernetes-client; do
        version=$(apt-cache policy "$package" 2>/dev/null | sed -n 's/^  Candidate: //p')
        if [[ $version =~ ^([0-9]+:)?1\.([0-9]+) ]] && [ "${BASH_REMATCH[2]}" -ge 30 ]; then
            echo "$package"
            return
        fi
    done
}
if [ "${1:-build}" = test ] && ! command -v kubectl >/dev/null && command -v apt-cache >/dev/null; then
    kubectl=$(distribution_kubectl)
    [ -z "$kubectl" ] || missing+=("$kubectl")
fi

if ! command -v cargo >/dev/null; then
    echo "deps: cargo is missing: install a Rust toolchain (1.89 or newer), https://rustup.rs" >&2
    exit 1
fi
[ ${#missing[@]} -eq 0 ] && exit 0

echo "deps: installing ${missing[*]}"
if [ "$(id -u)" != 0 ]; then
    echo "deps: not root; run: sudo apt-get install ${missing[*]}" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "deps: no apt-get here; install by hand what brings: ${missing[*]}" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# A package's service is not wanted, only its program.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
