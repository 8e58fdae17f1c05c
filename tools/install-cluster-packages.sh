#!/usr/bin/env bash
# Installs what images, compose and the cluster tests need beyond Python and Go: two container engines, docker-compose,
# the parts of a node, and debootstrap for a base image where there is no image registry. Without root, or without
# apt-get, nothing is installed and the tests concerned say why they are skipped.
set -euo pipefail

packages=(docker.io docker-compose podman containerd runc containernetworking-plugins etcd-server debootstrap
    catatonit iproute2 iptables nftables conntrack docker-registry)
commands=(dockerd docker-compose podman containerd runc etcd debootstrap catatonit ip iptables nft conntrack docker-registry)

missing=()
for command in "${commands[@]}"; do
    command -v "$command" >/dev/null || missing+=("$command")
done
if [ ${#missing[@]} = 0 ] && [ -x /usr/lib/cni/bridge ]; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed: ${missing[*]:-CNI plugins}; installing takes root and apt-get: the tests of images and" \
        "cluster will be skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# The packages' services must not start on the build machine.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
trap 'rm -f /usr/sbin/policy-rc.d' EXIT
apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
