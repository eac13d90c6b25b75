#!/usr/bin/env bash
# Fuzzes on a stable toolchain: see src/main.rs. Two cores have work.
set -euo pipefail
cd "$(dirname "$0")"

usage="usage: fuzz/run.sh [--seconds N] [--seed N] [--keep] [--target NAME] | --replay TARGET FILE
  --seconds  all told                           --keep  adds what reaches new code to the corpus"
seconds=60 seed=1 keep="" only="" replay=()
while (($#)); do
  case $1 in
    --seconds) seconds=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    --keep) keep=--keep; shift ;;
    --target) only=$2; shift 2 ;;
    --replay) replay=("$2" "$(cd "$OLDPWD" && realpath "$3")"); shift 3 ;;
    *) echo "$usage"; exit 2 ;;
  esac
done

# Coverage counters are one pass of the compiler, stable since long; only sanitizers would need a nightly one.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/fuzz"
export RUSTFLAGS="-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=3 \
-C llvm-args=-sanitizer-coverage-inline-8bit-counters"
# With a target named, build scripts are built without counters: they have nowhere to report them.
host=$("${RUSTC:-rustc}" -vV | sed -n 's/^host: //p')
"${CARGO:-cargo}" build --quiet --release --target "$host"
fuzz=$CARGO_TARGET_DIR/$host/release/sidestep-fuzz

if ((${#replay[@]})); then exec "$fuzz" replay "${replay[@]}"; fi
targets=$("$fuzz" list)
if [[ -n $only ]]; then targets=$only; fi
n=$(wc -w <<<"$targets")
if ((n == 1)); then exec "$fuzz" run $targets --seconds "$seconds" --seed "$seed" $keep; fi
# The connection, where nearly all of the code is, has one core to itself; the parsers share the other.
others=$(grep -vx connection <<<"$targets")
each=$(((seconds + n - 2) / (n - 1)))
"$fuzz" run connection --seconds "$seconds" --seed "$seed" $keep &
xargs -I {} "$fuzz" run {} --seconds "$each" --seed "$seed" $keep <<<"$others"
wait $!
