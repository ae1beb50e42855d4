//! What the guest's init could not mount is told before there is a guest.

use crate::cli::{kvmlet, run, text};
use crate::harness::Test;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

pub const TESTS: &[Test] = &[
    ("disk_content_that_is_mountable_is_taken", mountable),
    ("disk_content_that_is_no_root_is_refused", no_root),
    ("disk_content_that_is_no_scratch_is_refused", no_scratch),
    ("disk_content_of_a_scratch_is_made", made),
    ("disk_content_is_no_kernel_or_initrd", misplaced),
    ("disk_content_in_a_partition_is_taken_out", partitioned),
];

const MIB: u64 = 1 << 20;

/// Says so where a program is not.
pub fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("-V").output().is_ok();
    if !found {
        println!("SKIPPED: no {program}");
    }
    found
}

pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn ext4(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        File::create(&path).unwrap().set_len(4 * MIB).unwrap();
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&path));
        assert!(made.status.success(), "{}", text(&made.stderr));
        path
    }

    fn holding(&self, name: &str, offset: u64, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        let file = File::create(&path).unwrap();
        file.set_len(4 * MIB).unwrap();
        file.write_all_at(bytes, offset).unwrap();
        path
    }
}

pub fn boot(arguments: &[(&str, &Path)]) -> Output {
    let mut command = kvmlet("power_off");
    command.args(["--cmdline", "code=0"]);
    for (option, path) in arguments {
        command.arg(option).arg(path);
    }
    run(&mut command)
}

pub fn taken(output: &Output) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
}

pub fn refused(output: &Output, expected: &[&str]) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{errors}");
    for part in expected {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}

fn mountable() {
    if !is_installed("mkfs.ext4") {
        return;
    }
    let place = Place::new();
    let (root, scratch) = (place.ext4("root"), place.ext4("scratch"));
    taken(&boot(&[("--root", &root), ("--scratch", &scratch)]));
    let erofs = place.holding("erofs", 1024, b"\xe2\xe1\xf5\xe0");
    taken(&boot(&[("--root", &erofs)]));
    // Other disks may hold what they like.
    let data = place.holding("data", 0, b"hsqs");
    taken(&boot(&[("--root", &erofs), ("--disk", &data)]));
}

fn no_root() {
    if !is_installed("mkfs.ext4") {
        return;
    }
    let place = Place::new();
    let short = place.ext4("short");
    File::options()
        .write(true)
        .open(&short)
        .unwrap()
        .set_len(MIB)
        .unwrap();
    let dirty = place.ext4("dirty");
    let file = File::options().read(true).write(true).open(&dirty).unwrap();
    let mut features = [0];
    file.read_exact_at(&mut features, 1024 + 0x60).unwrap();
    file.write_all_at(&[features[0] | 4], 1024 + 0x60).unwrap();
    for (path, expected) in [
        (
            place.holding("empty", 0, b""),
            &["it is empty", "mkfs.erofs"][..],
        ),
        (
            place.holding("xfs", 0, b"XFSB"),
            &["it is XFS", "mkfs.ext4 -d"],
        ),
        (
            place.holding("text", 0, b"hello"),
            &["does not hold erofs or ext4"],
        ),
        (
            short,
            &["is cut off: its file system has 4194304 bytes, and 1048576 are there"],
        ),
        (dirty.clone(), &["was not unmounted", "e2fsck -fy"]),
    ] {
        let output = boot(&[("--root", &path)]);
        let name = format!("root `{}`", path.display());
        refused(&output, &[&name]);
        refused(&output, expected);
    }
    // A scratch disk can be repaired by its guest.
    taken(&boot(&[
        ("--root", &place.ext4("root")),
        ("--scratch", &dirty),
    ]));
}

fn no_scratch() {
    if !is_installed("mkfs.ext4") {
        return;
    }
    let place = Place::new();
    let root = place.ext4("root");
    for (path, expected) in [
        (place.holding("empty", 0, b""), "make one: `mkfs.ext4 "),
        (
            place.holding("erofs", 1024, b"\xe2\xe1\xf5\xe0"),
            "it is erofs",
        ),
        (
            place.holding("text", 0, b"hello"),
            "which destroys what it holds",
        ),
    ] {
        let name = format!("scratch disk `{}` does not hold ext4", path.display());
        refused(
            &boot(&[("--root", &root), ("--scratch", &path)]),
            &[&name, expected],
        );
    }
}

fn made() {
    if !is_installed("mkfs.ext4") {
        return;
    }
    let place = Place::new();
    let (root, scratch) = (place.ext4("root"), place.path("scratch"));
    let sized = PathBuf::from(format!("{},size=64M", scratch.display()));
    for arguments in [&[][..], &["--no-jail"]] {
        let _ = std::fs::remove_file(&scratch);
        let boot = || {
            let mut command = kvmlet("power_off");
            command.args(["--cmdline", "code=0"]).args(arguments);
            command
                .arg("--root")
                .arg(&root)
                .arg("--scratch")
                .arg(&sized);
            run(&mut command)
        };
        taken(&boot());
        // The second start takes what is there, as the first guest has left it.
        let file = File::options().write(true).open(&scratch).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 64 * MIB);
        file.write_all_at(b"mine", 0).unwrap();
        taken(&boot());
        assert!(std::fs::read(&scratch).unwrap().starts_with(b"mine"));
    }
    let missing = boot(&[("--root", &root), ("--scratch", &place.path("missing"))]);
    refused(&missing, &["missing`", "--scratch FILE,size=1G"]);
    let small = PathBuf::from(format!("{},size=1K", place.path("small").display()));
    refused(
        &boot(&[("--root", &root), ("--scratch", &small)]),
        &["a scratch disk of 1 KiB is too small: 2 MiB is the least"],
    );
    assert!(!place.path("small").exists());
}

/// A disk where a kernel or an initrd should be.
fn misplaced() {
    let place = Place::new();
    let (qcow, empty) = (
        place.holding("qcow", 0, b"QFI\xfb\0\0\0\x03"),
        place.path("nil"),
    );
    File::create(&empty).unwrap();
    let told = format!("with initrd `{}`", qcow.display());
    refused(
        &boot(&[("--initrd", &qcow)]),
        &[&told, "a qcow2 disk image", "images/build"],
    );
    refused(
        &boot(&[("--initrd", &empty)]),
        &["the initrd is empty", "images/build"],
    );
    for (path, part) in [
        (&qcow, "it looks like a qcow2 disk image"),
        (&empty, "the file is empty"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
        let output = run(command.args(["boot", "--kernel"]).arg(path));
        refused(&output, &[part, "kernels/build"]);
    }
    refused(
        &boot(&[("--disk", &empty)]),
        &["has 0 bytes", "truncate -s 1G"],
    );
}

fn partitioned() {
    if !is_installed("mkfs.ext4") {
        return;
    }
    let place = Place::new();
    let path = place.path("disk");
    let inner = std::fs::read(place.ext4("inner")).unwrap();
    let disk = File::create(&path).unwrap();
    disk.write_all_at(&inner, MIB).unwrap();
    // The first partition is the boot loader's; the second begins at 1 MiB and has 4.
    let entry = |first: u32, sectors: u32| {
        let mut entry = [0; 16];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..].copy_from_slice(&sectors.to_le_bytes());
        entry
    };
    disk.write_all_at(&entry(64, 64), 446).unwrap();
    disk.write_all_at(&entry(2048, 8192), 462).unwrap();
    disk.write_all_at(b"\x55\xaa", 510).unwrap();
    let output = boot(&[("--root", &path)]);
    refused(
        &output,
        &[
            "is a disk with partitions (MBR)",
            "take partition 2 out: `dd ",
        ],
    );
    // The command does what it says.
    let errors = text(&output.stderr);
    let command = errors
        .split('`')
        .find(|part| part.starts_with("dd "))
        .unwrap();
    let image = place.path("out");
    let command = command.replace("of=IMAGE", &format!("of={}", image.display()));
    assert!(
        run(Command::new("sh").args(["-c", &command]))
            .status
            .success()
    );
    assert!(std::fs::read(&image).unwrap() == inner);
    taken(&boot(&[("--root", &image)]));
    disk.write_all_at(&[0; 2048], MIB).unwrap();
    refused(
        &boot(&[("--root", &path)]),
        &["of which none holds erofs or ext4"],
    );
}
