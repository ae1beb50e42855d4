//! Disks that the host itself uses, in ways that need its modules: swap, device-mapper, partitions.

use crate::Test;
use crate::host::Host;

pub const TESTS: &[Test] = &[
    ("swap_is_no_disk_of_a_vm", swap),
    ("what_a_mapped_device_is_made_of_is_no_disk", mapped),
    ("a_disk_with_a_mounted_partition_is_refused", partition),
];

/// For scripts: a loop device over a file of its own, gone with the script, and a start that is to be refused.
const START: &str = r#"
    directory=$(mktemp -d)
    truncate -s 64M $directory/disk
    end() {
        swapoff $directory/mounted/swap $loop || true
        dmsetup remove kvmlet-test || true
        umount $directory/mounted || true
        losetup -d $loop
        rm -r $directory
    } 2>/tmp/end
    trap end EXIT
    modprobe loop
    loop=$(losetup --find --show $directory/disk)
    mkdir $directory/mounted
    boot() { kvmlet boot --kernel $GUESTS/ready --disk "$@" 2>&1 || echo "code=$?"; }
"#;

/// What the starts say is what is expected, with `LOOP` and `DIRECTORY` for names that are new each time.
fn says(host: &Host, script: &str, expected: &[&str]) {
    let names = r#"sed -e "s,${loop#/dev/},LOOP,g; s,$directory,DIRECTORY,g""#;
    let script = format!("{START}{{{script}}} | {names}\n");
    let said = host.sh(&script).success();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{said}");
}

const REFUSED: &str = "error: cannot give the VM a disk";

fn swap(host: &Host) {
    let script = r#"
        mkswap -q $loop
        swapon $loop
        boot $loop
        boot $directory/disk,ro
        swapoff $loop
        mkfs.ext4 -q $loop
        mount $loop $directory/mounted
        dd if=/dev/zero of=$directory/mounted/swap bs=1M count=8 status=none
        chmod 600 $directory/mounted/swap
        mkswap -q $directory/mounted/swap
        swapon $directory/mounted/swap
        boot $directory/mounted/swap
        swapoff $directory/mounted/swap
        boot $directory/mounted/swap
    "#;
    says(
        host,
        script,
        &[
            REFUSED,
            "  caused by: disk `/dev/LOOP` is in use by this host: `/dev/LOOP` is swap space",
            "  help: end that (`swapoff /dev/LOOP`)",
            "code=125",
            REFUSED,
            "  caused by: disk `DIRECTORY/disk` is in use by this host: `/dev/LOOP` is swap space",
            "  help: end that (`swapoff /dev/LOOP`)",
            "code=125",
            REFUSED,
            "  caused by: disk `DIRECTORY/mounted/swap` is in use by this host: it is swap space",
            "  help: end that (`swapoff FILE`)",
            "code=125",
            "ready",
        ],
    );
}

fn mapped(host: &Host) {
    let script = r#"
        modprobe dm-mod
        dmsetup create kvmlet-test --table "0 100000 linear $loop 0"
        boot $loop
        boot $directory/disk,ro
        dmsetup mknodes
        mkfs.ext4 -q /dev/mapper/kvmlet-test
        mount /dev/mapper/kvmlet-test $directory/mounted
        boot /dev/mapper/kvmlet-test
        umount $directory/mounted
        boot /dev/mapper/kvmlet-test
    "#;
    let way_out = "  help: take that apart, as by `dmsetup remove`, or name it as the disk instead";
    says(
        host,
        script,
        &[
            REFUSED,
            "  caused by: disk `/dev/LOOP` is in use by this host: `/dev/LOOP` is part of `/dev/mapper/kvmlet-test`",
            way_out,
            "code=125",
            REFUSED,
            "  caused by: disk `DIRECTORY/disk` is in use by this host: `/dev/LOOP` is part of `/dev/mapper/kvmlet-test`",
            way_out,
            "code=125",
            REFUSED,
            "  caused by: disk `/dev/mapper/kvmlet-test` is in use by this host: `/dev/dm-0` is mounted at `DIRECTORY/mounted`",
            "  help: unmount it (`umount DIRECTORY/mounted`)",
            "code=125",
            "ready",
        ],
    );
}

fn partition(host: &Host) {
    let script = r#"
        addpart $loop 1 2048 60000
        mkfs.ext4 -q ${loop}p1
        mount ${loop}p1 $directory/mounted
        boot $loop
        boot $directory/disk
        boot ${loop}p1
        umount $directory/mounted
        boot ${loop}p1
        delpart $loop 1
    "#;
    let mounted = "`/dev/LOOPp1` is mounted at `DIRECTORY/mounted`";
    let refused = |disk: &str| {
        [
            REFUSED.into(),
            format!("  caused by: disk `{disk}` is in use by this host: {mounted}"),
            "  help: unmount it (`umount DIRECTORY/mounted`)".into(),
            "code=125".into(),
        ]
    };
    let expected: Vec<String> = ["/dev/LOOP", "DIRECTORY/disk", "/dev/LOOPp1"]
        .iter()
        .flat_map(|disk| refused(disk))
        .chain(["ready".into()])
        .collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    says(host, script, &expected);
}
