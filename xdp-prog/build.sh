#!/bin/sh
# Builds the BPF objects that the product embeds: obj/steer.o (the XDP program) and obj/dropper.o (the rig's lossy wire).
#
#   xdp-prog/build.sh           rebuild and replace obj/
#   xdp-prog/build.sh --check   rebuild elsewhere, fail if the committed objects are not what their source gives (CI)
#
# The ordinary `cargo build` of the product needs none of this: the objects are committed.
# Debian's compiler, standard library source and LLVM build them, so that one `apt-get install` is the whole toolchain; only bpf-linker
# comes from crates.io, once, into $SIDESTEP_BPF_TOOLS (default ~/.cache/sidestep/bpf-tools), where CI and developers keep it.
# The result depends on neither the checkout path nor the user: see RUSTFLAGS below.
set -eu

LINKER_VERSION=0.13.0
LLVM=22
PACKAGES="rustc-web cargo-web rust-web-src llvm-$LLVM-dev"

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
root=$(dirname -- "$here")
tools=${SIDESTEP_BPF_TOOLS:-$HOME/.cache/sidestep/bpf-tools}/bpf-linker-$LINKER_VERSION-llvm$LLVM
target=${CARGO_TARGET_DIR:-$root/target}/bpf

say() { echo "build.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

case "${1-}" in
    '') check=no ;;
    --check) check=yes ;;
    *) fail "usage: build.sh [--check]" ;;
esac

install_packages() {
    missing=
    for package in $PACKAGES; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || fail "as root, please: apt-get install --no-install-recommends$missing"
    say "installing$missing"
    apt-get update -q >&2
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing >&2
}

# Debian's tools and no others: not rustup's, not what the caller's environment asks for.
use_debian_toolchain() {
    PATH=$tools/bin:/usr/lib/llvm-$LLVM/bin:/usr/bin:/bin
    export PATH RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 LC_ALL=C
    # shellcheck disable=SC2046 # a list of names
    unset $(env | sed -n 's/^\(CARGO_PROFILE_[A-Z0-9_]*\)=.*/\1/p')
    unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER CARGO_BUILD_TARGET RUSTUP_TOOLCHAIN
}

install_linker() {
    [ ! -x "$tools/bin/bpf-linker" ] || return 0
    say "installing bpf-linker $LINKER_VERSION into $tools (a few minutes, once)"
    RUSTFLAGS="-L /usr/lib/llvm-$LLVM/lib" CARGO_TARGET_DIR="$target/linker" \
        cargo install bpf-linker --version "$LINKER_VERSION" --locked --no-default-features --features "llvm-$LLVM" --root "$tools" >&2
    rm -rf "$target/linker"
}

# What the bytes depend on. Committed beside them, so that a mismatch can be told from a changed compiler.
toolchain() {
    rustc --version
    echo "LLVM $(llvm-config --version)"
    bpf-linker --version
}

# Prints nothing; leaves $1/steer.o and $1/dropper.o.
#
# cpu v3 (Linux 5.1): 32-bit registers and jumps. Misaligned access: packet headers are not aligned, and without it every field is put
# together from bytes; the verifier allows it wherever the hardware does. Both remaps: no path of this machine in the object.
build() {
    out=$1
    ( cd "$here/bpf"
      CARGO_TARGET_DIR=$target RUSTFLAGS="
        -C target-cpu=v3 -C link-arg=--cpu-features=+allows-misaligned-mem-access
        -C linker=bpf-linker -C debuginfo=0
        --remap-path-prefix=$root=/sidestep --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" \
        cargo build -q --locked --release -Z build-std=core --target bpfel-unknown-none --ignore-rust-version ) >&2
    for name in steer dropper; do
        llvm-objcopy --strip-unneeded "$target/bpfel-unknown-none/release/$name" "$out/$name.o"
    done
    toolchain >"$out/TOOLCHAIN"
}

check() {
    fresh=$(mktemp -d)
    trap 'rm -rf "$fresh"' EXIT
    build "$fresh"
    status=0
    for name in steer.o dropper.o; do
        cmp -s "$here/obj/$name" "$fresh/$name" && continue
        status=1
        say "xdp-prog/obj/$name is not what its source gives:"
        llvm-objdump -dr --no-show-raw-insn "$here/obj/$name" 2>/dev/null | tail -n +3 >"$fresh/committed.txt" || true
        llvm-objdump -dr --no-show-raw-insn "$fresh/$name" | tail -n +3 >"$fresh/rebuilt.txt"
        diff -u "$fresh/committed.txt" "$fresh/rebuilt.txt" | head -n 40 >&2 || true
    done
    if [ $status = 0 ]; then
        say "the committed objects are what their source gives"
        return 0
    fi
    if ! diff -u "$here/obj/TOOLCHAIN" "$fresh/TOOLCHAIN" >&2; then
        say "the toolchain differs from the one that built them (above), which may be all there is to it"
    fi
    fail "run xdp-prog/build.sh and commit xdp-prog/obj/"
}

install_packages
use_debian_toolchain
install_linker
if [ $check = yes ]; then
    check
else
    mkdir -p "$here/obj"
    build "$here/obj"
    (cd "$here/obj" && wc -c steer.o dropper.o >&2)
fi
