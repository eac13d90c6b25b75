#!/usr/bin/env bash
# Installs the programs that the rig needs and that are not here yet. Without root it only says what is missing.
set -euo pipefail

# command → Debian package
needs=(
    redis-server:redis-server redis-benchmark:redis-tools redis-cli:redis-tools nginx:nginx-light wrk:wrk ab:apache2-utils
    dnsmasq:dnsmasq-base ip:iproute2 ethtool:ethtool curl:curl python3:python3 setpriv:util-linux cc:gcc make:make
    memcached:memcached haproxy:haproxy h2load:nghttp2-client openssl:openssl iperf3:iperf3 sockperf:sockperf socat:socat
    node:nodejs /usr/lib/postgresql/15/bin/postgres:postgresql-15 psql:postgresql-client-15 unbound:unbound dig:bind9-dnsutils
    setcap:libcap2-bin /usr/sbin/sshd:openssh-server ssh:openssh-client inetd:openbsd-inetd
)

PATH=$PATH:/usr/sbin:/sbin
packages=()
for need in "${needs[@]}"; do
    command -v "${need%%:*}" >/dev/null || packages+=("${need##*:}")
done
[[ -e /usr/include/stdio.h ]] || packages+=(libc6-dev)
[[ -e /usr/lib/nginx/modules/ngx_stream_module.so ]] || packages+=(libnginx-mod-stream)
[[ ${#packages[@]} -eq 0 ]] && exit 0

mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
if [[ $EUID -ne 0 ]]; then
    echo "missing, and only root can install them: ${packages[*]}" >&2
    exit 0
fi
echo "installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
# The rig starts its own servers in its own namespaces; the packages' services are not wanted.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
