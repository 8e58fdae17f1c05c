#!/usr/bin/env bash
# Installs what the suite needs beyond Python: Prometheus, so that the scrape configuration of `modelyard up` is
# tried for real. Without root nothing is installed; the tests concerned then say why they are skipped.
set -euo pipefail

if command -v prometheus >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "prometheus is not installed and cannot be (no root, or no apt-get): its test will be skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# A package's service must not start on the build machine.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
trap 'rm -f /usr/sbin/policy-rc.d' EXIT
apt-get install -y -qq --no-install-recommends prometheus >/dev/null
