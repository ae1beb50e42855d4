# shellcheck shell=bash
#
# What kvmlet's programs are built for. Sourced by tests/run, images/demo, images/services/check and src/cli/deb.

readonly glibc_target=x86_64-unknown-linux-gnu musl_target=x86_64-unknown-linux-musl

# Exports CARGO_BUILD_TARGET, unless it is set: musl, or glibc where Rust's musl is not here and rustup does not get it.
# A program with glibc begins by asking the processor what it is, by some 45 CPUID instructions. Each leaves a virtual
# machine, and takes 12 us on the hosts of our tests: a quarter of a VM's whole start.
choose_target() {
    if [ -z "${CARGO_BUILD_TARGET-}" ]; then
        CARGO_BUILD_TARGET=$musl_target
        if ! has_target "$musl_target" && ! timeout 120 rustup target add "$musl_target" &>/dev/null; then
            printf 'note: VMs start a quarter slower: `rustup target add %s` has failed\n' "$musl_target" >&2
            CARGO_BUILD_TARGET=$glibc_target
        fi
    fi
    export CARGO_BUILD_TARGET
}

has_target() {
    [ -d "$(rustc --print target-libdir --target "$1")" ]
}

# Prints the directory of the programs of profile $1 (release, debug), of the checkout $2.
programs() {
    local target
    target=$(cargo metadata --format-version 1 --no-deps --offline --manifest-path "$2/Cargo.toml" |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    printf '%s/%s/%s\n' "$target" "$CARGO_BUILD_TARGET" "$1"
}
