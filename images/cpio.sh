# shellcheck shell=bash
#
# Writes a cpio archive in the "newc" format to standard output, entry by entry (Linux
# Documentation/driver-api/early-userspace/buffer-format.rst). Unlike cpio(1) it needs neither root
# for device nodes nor a tree on disk, and all files belong to root and have no time.

cpio_inode=0

# Usage: cpio_entry NAME MODE LINKS SIZE MAJOR MINOR; the content follows.
cpio_entry() {
    local name=${1#/} mode=$2 links=$3 size=$4 major=$5 minor=$6
    local length=$((${#name} + 1))
    # In hexadecimal: inode, mode, user, group, links, time, size, device of the file system (major,
    # minor), device of the node (major, minor), length of the name, checksum.
    printf '070701'
    printf '%08x' $((++cpio_inode)) "$mode" 0 0 "$links" 0 "$size" 0 0 "$major" "$minor" "$length" 0
    printf '%s\0' "$name"
    cpio_pad $((110 + length))
}

# Fills up with zeros to a multiple of 4 bytes.
cpio_pad() {
    head -c $(((4 - $1 % 4) % 4)) /dev/zero
}

cpio_directory() {
    cpio_entry "$1" $((0040000 | 8#$2)) 2 0 0 0
}

cpio_character_device() {
    cpio_entry "$1" $((0020000 | 8#$2)) 1 0 "$3" "$4"
}

# Usage: cpio_symlink TARGET NAME
cpio_symlink() {
    cpio_entry "$2" $((0120777)) 1 ${#1} 0 0
    printf '%s' "$1"
    cpio_pad ${#1}
}

# Usage: cpio_file SOURCE NAME MODE
cpio_file() {
    local size
    size=$(stat -L -c %s -- "$1")
    cpio_entry "$2" $((0100000 | 8#$3)) 1 "$size" 0 0
    cat -- "$1"
    cpio_pad "$size"
}

cpio_end() {
    cpio_inode=-1 # so that it is 0
    cpio_entry 'TRAILER!!!' 0 1 0 0 0
}
