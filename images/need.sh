# shellcheck shell=bash
#
# Installs Debian packages whose commands are missing; sourced by images/demo and tests/run.

# need [--lean] COMMAND:PACKAGE... installs the packages of those commands that are not there; with
# --lean without those that they recommend.
need() {
    local pair missing=() sudo=() options=()
    if [ "$1" = --lean ]; then
        options=(--no-install-recommends)
        shift
    fi
    for pair in "$@"; do
        # Some are where only root's PATH leads.
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    if [ "$(id -u)" -ne 0 ]; then
        # Without a terminal nobody can be asked for a password.
        if ! command -v sudo >/dev/null || { [ ! -t 0 ] && ! sudo -n true 2>/dev/null; }; then
            printf 'error: packages are missing: %s\n  help: as root: apt-get install %s\n' \
                "${missing[*]}" "${missing[*]}" >&2
            exit 1
        fi
        sudo=(sudo)
    fi
    # A third-party repository that cannot be reached does not matter: what is installed decides.
    "${sudo[@]}" apt-get update -qq >&2 || true
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${options[@]}" "${missing[@]}" >&2
}
