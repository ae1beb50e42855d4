# shellcheck shell=bash
#
# What kvmlet's programs are built for. Sourced by tests/run, images/demo, images/services/check and src/cli/deb.

readonly glibc_target=x86_64-unknown-linux-gnu

# Exports CARGO_BUILD_TARGET: glibc, unless it is set to musl (rustup target add x86_64-unknown-linux-musl). A program with
# glibc begins by asking the processor what it is, by some 45 CPUID instructions. Each leaves a virtual machine, and takes
# 12 us on the hosts of our tests: a quarter of a VM's whole start.
choose_target() {
    export CARGO_BUILD_TARGET=${CARGO_BUILD_TARGET:-$glibc_target}
}

# Prints the directory of the programs of profile $1 (release, debug), of the checkout $2.
programs() {
    local target
    target=$(cargo metadata --format-version 1 --no-deps --offline --manifest-path "$2/Cargo.toml" |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    printf '%s/%s/%s\n' "$target" "$CARGO_BUILD_TARGET" "$1"
}
