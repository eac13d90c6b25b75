#!/bin/sh
# Runs each parity program on the kernel and under the shim and compares what they print.
#   ctests/run.sh LIBSIDESTEP.SO            over loopback: everything falls through to the kernel
#   CT_DEV=dev CT_ADDR=… CT_PEER_ADDR=… CT_PEER_NETNS=… ctests/run.sh LIBSIDESTEP.SO    (in the server's namespace, with
#   its daemon running): the traffic goes through the user stack, the peer stays on the kernel
set -u
lib=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
failed=0
# Datagrams that it received.
datagrams() { awk '/^Udp:/ { line++ } line == 2 { print $2; exit }' /proc/net/snmp; }
# TCP segments that this namespace's kernel received.
segments() { awk '/^Tcp:/ { line++ } line == 2 { print $11 }' /proc/net/snmp; }
for source in "$here"/*.c; do
	name=$(basename "$source" .c)
	cc -O1 -Wall -Wextra -Wno-unused-function -pthread -o "$out/$name" "$source" || exit 1
	before=$(datagrams)
	timeout 30 "$out/$name" >"$out/$name.kernel" 2>&1
	datagrams=$(($(datagrams) - before))
	before=$(segments) datagrams_before=$(datagrams)
	env ${CT_DEV:+SIDESTEP_DEV=$CT_DEV} LD_PRELOAD="$lib" timeout 30 "$out/$name" >"$out/$name.sidestep" 2>&1
	if [ -n "${CT_DEV:-}" ] && [ "$(segments)" != "$before" ]; then
		echo "FAILED $name: the kernel carried its traffic"
		failed=1
	elif [ -n "${CT_DEV:-}" ] && [ $((($(datagrams) - datagrams_before) * 4)) -gt "$datagrams" ]; then
		echo "FAILED $name: the kernel carried most of its datagrams"
		failed=1
	elif diff -u "$out/$name.kernel" "$out/$name.sidestep" && grep -q '^peer: ok' "$out/$name.kernel"; then
		echo "ok $name ($(wc -l <"$out/$name.kernel") lines)"
	else
		echo "FAILED $name"
		failed=1
	fi
done
exit $failed
