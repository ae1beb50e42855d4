# shellcheck shell=bash
#
# Drivers of a kernel that has them as modules, for an initramfs that init loads them from. Sourced by images/build.

# What a guest's devices and file systems want, by the names of modules.
readonly GUEST_MODULES=(
    crc32c_generic virtio_pci virtio_mmio virtio_blk virtio_net virtio_rng virtio_balloon vmw_vsock_virtio_transport
    erofs ext4 overlay pvpanic_mmio
)

# module_files DIRECTORY: the files of those, each behind what it needs (modules.dep(5)), as paths in /lib/modules/RELEASE.
# What the kernel has built in needs none; what it does not have at all is told.
module_files() {
    local lists=("$1/modules.dep")
    # A kernel may have nothing built in, and its list may not be there.
    [[ ! -e $1/modules.builtin ]] || lists=("$1/modules.builtin" "${lists[@]}")
    awk -v wanted="${GUEST_MODULES[*]}" -v directory="$1" '
        function name(file) {
            sub(/.*\//, "", file)
            sub(/\.ko.*/, "", file)
            gsub(/-/, "_", file)
            return file
        }
        FILENAME ~ /builtin$/ { builtin[name($1)]; next }
        { sub(/:/, ""); needs[name($1)] = $0 }
        END {
            count = split(wanted, names, " ")
            for (i = 1; i <= count; i++) {
                if (names[i] in builtin) continue
                if (!(names[i] in needs)) {
                    print "warning: no module " names[i] " in " directory | "cat >&2"
                    continue
                }
                # The farthest need is last in a line, and the module itself is first.
                for (at = split(needs[names[i]], files, " "); at > 0; at--)
                    if (!(files[at] in told)) { told[files[at]]; print files[at] }
            }
        }' "${lists[@]}"
}

# Writes a module as the kernel loads it: what guests have to unpack, they do so at each start.
unpack_module() {
    case $1 in
    *.xz) xz -dc -- "$1" ;;
    *.zst) zstd -dcq -- "$1" ;;
    *.gz) gzip -dc -- "$1" ;;
    *) cat -- "$1" ;;
    esac
}

# require_unpackers DIRECTORY: installs what unpacks its modules.
require_unpackers() {
    local files
    files=$(module_files "$1" 2>/dev/null)
    [[ $files != *.xz* ]] || require_command xz xz-utils
    [[ $files != *.zst* ]] || require_command zstd zstd
}

# cpio_modules DIRECTORY SCRATCH: entries of an initramfs that init loads these drivers from.
cpio_modules() {
    local files file name
    mapfile -t files < <(module_files "$1")
    cpio_directory /modules 755
    : >"$2/list"
    for file in "${files[@]}"; do
        name=${file##*/}
        name=${name%.ko*}.ko
        unpack_module "$1/$file" >"$2/module"
        cpio_file "$2/module" "/modules/$name" 644
        printf '%s\n' "$name" >>"$2/list"
    done
    cpio_file "$2/list" /modules/list 644
}
