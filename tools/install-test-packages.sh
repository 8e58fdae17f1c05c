#!/usr/bin/env bash
# Installs what the suite needs beyond Python: Prometheus and its Alertmanager, so that scraping, queries, rules and
# the routing of alerts are tried for real; npm and rsync, with which GitLab's pipeline is; Java, with which the
# Jenkinsfile is compiled; h2load, the load of the benchmarks. Without root nothing is installed; the tests concerned
# then say why they are skipped.
set -euo pipefail

missing=()
command -v prometheus >/dev/null || missing+=(prometheus)
command -v amtool >/dev/null || missing+=(prometheus-alertmanager)
command -v h2load >/dev/null || missing+=(nghttp2-client)
command -v npm >/dev/null || missing+=(npm)
command -v rsync >/dev/null || missing+=(rsync)
command -v java >/dev/null || missing+=(default-jre-headless)
if [ ${#missing[@]} = 0 ]; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed: ${missing[*]}; installing takes root and apt-get: tests will be skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# A package's service must not start on the build machine.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
trap 'rm -f /usr/sbin/policy-rc.d' EXIT
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
