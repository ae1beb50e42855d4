# shellcheck shell=bash
#
# Debian packages without root: which versions apt would take, fetching them, unpacking them.
# Sourced by `build`, which provides $cache, $work and as_root.

# Package lists may be missing or old: refresh them only if the command fails without. A third-party
# repository that cannot be reached does not matter, so the second try decides.
with_apt_lists() {
    "$@" && return
    as_root apt-get update || true
    "$@"
}

# Prints name and version of each package as apt would download it; fails if it does not know one.
candidates() {
    (($#)) || return 0
    apt-cache show --no-all-versions "$@" |
        awk -v wanted=$# '
            /^Package: / { name = $2 }
            /^Version: / { print name, $2; count++ }
            END { exit count != wanted }'
}

# Puts the packages listed in a file into the cache, and their paths into $work/debs. What apt's
# lists name may be gone from the mirror: then the file gets the versions of fresh lists.
fetch_packages() {
    local list=$1 package version names
    mkdir -p -- "$cache/debs" "$work/download"
    if ! download_missing "$list"; then
        as_root apt-get update || true
        mapfile -t names < <(cut -d ' ' -f 1 "$list")
        candidates "${names[@]}" >"$list.new"
        mv -- "$list.new" "$list"
        download_missing "$list"
    fi
    while read -r package version; do
        deb_of "$package" "$version"
    done <"$list" >"$work/debs"
}

# Downloads those of the packages listed in a file that the cache does not have.
download_missing() {
    local package version missing=()
    while read -r package version; do
        deb_of "$package" "$version" >/dev/null || missing+=("$package=$version")
    done <"$1"
    ((${#missing[@]})) || return 0
    # As root, apt would rather be its own user, who may not write here.
    (cd -- "$work/download" && apt-get -o APT::Sandbox::User=root download "${missing[@]}" &&
        mv -- ./*.deb "$cache/debs/")
}

# Prints where the cache has a package; fails if it does not.
deb_of() {
    # apt writes the colon of an epoch as %3a.
    compgen -G "$cache/debs/$1_${2//:/%3a}_*.deb"
}

# Unpacks the packages of $work/debs below a directory, leaving out what no service reads.
unpack_packages() {
    local root=$1 deb skip=(
        --exclude='./usr/share/'{doc,man,info,locale,lintian,bug,doc-base,bash-completion}
        --exclude='./usr/share/'{gcc,i18n,pixmaps,applications,perl5}
        --exclude='./usr/lib/*/gconv' --exclude='./usr/lib/systemd' --exclude='./lib/systemd'
        --exclude='./etc/init.d' --exclude='./etc/logrotate.d' --exclude='./etc/ufw'
    )
    while read -r deb; do
        dpkg-deb --fsys-tarfile "$deb" |
            tar -x -C "$root" --keep-directory-symlink --no-same-owner "${skip[@]}"
    done <"$work/debs"
}
