//! Disks that the host itself uses, by loop devices and mounts of the test's own: a mount namespace is private and
//! ends with its process, and a loop device lets go when nothing has it open.

use crate::block_device::LoopDevice;
use crate::cli::{Running, kvmlet, run, text};
use crate::disk_content::is_installed;
use crate::harness::{Test, program};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

pub const TESTS: &[Test] = &[
    ("disk_that_is_mounted_is_refused", mounted),
    (
        "disk_that_is_mounted_read_only_is_shared",
        mounted_read_only,
    ),
    ("disk_below_a_loop_device_is_refused", attached),
    ("disk_below_a_loop_device_by_another_name", renamed),
    (
        "disk_below_a_read_only_loop_device_is_shared",
        attached_read_only,
    ),
    ("disk_below_two_loop_devices_is_refused", attached_twice),
    ("disk_device_that_is_mounted_is_refused", mounted_device),
    ("disk_of_another_vm_names_its_process", other_vm),
];

/// An ext4 file system in a file, and a place to mount it.
struct Scene {
    directory: TempDir,
}

impl Scene {
    /// None, aloud, where its tools are not installed.
    fn new() -> Option<Self> {
        if !is_installed("mkfs.ext4") || !is_installed("unshare") {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let scene = Self { directory };
        std::fs::create_dir(scene.place("mount point")).unwrap();
        let image = File::create(scene.place("d.img")).unwrap();
        image.set_len(4 << 20).unwrap();
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F", &scene.place("d.img")]));
        assert!(made.status.success(), "{}", text(&made.stderr));
        Some(scene)
    }

    fn place(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().into()
    }

    fn attach(&self, write: bool) -> Option<LoopDevice> {
        let mut options = File::options();
        let image = options.read(true).write(write).open(self.place("d.img"));
        LoopDevice::attached(&image.unwrap(), 512)
    }

    /// Boots with a disk while a device is mounted. None, aloud, where there is nothing to mount with.
    fn boot_beside(&self, device: &Path, options: &str, disk: &str) -> Option<Output> {
        let script = "mount -o \"$1\" \"$2\" \"$3\" || exit 77; shift 3; exec \"$@\"";
        let output = run(Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh", options])
            .arg(device)
            .arg(self.place("mount point"))
            .args([env!("CARGO_BIN_EXE_kvmlet"), "boot", "--kernel"])
            .arg(program("power_off"))
            .args(["--cmdline", "code=0", "--disk", disk])
            .stdin(Stdio::null()));
        if output.status.code() == Some(77) {
            println!("SKIPPED: no mount: {}", text(&output.stderr));
            return None;
        }
        Some(output)
    }
}

fn boot(disk: &str) -> Output {
    run(kvmlet("power_off").args(["--cmdline", "code=0", "--disk", disk]))
}

fn taken(output: &Output) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
}

fn refused(output: &Output, expected: &[&str]) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{errors}");
    for part in expected {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}

fn mounted() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let Some(device) = scene.attach(true) else {
        return;
    };
    let image = scene.place("d.img");
    let at = format!(
        "disk `{image}` is in use by this host: `{}` is mounted at `{}`",
        device.path.display(),
        scene.place("mount point")
    );
    for disk in [image.clone(), format!("{image},ro")] {
        match scene.boot_beside(&device.path, "rw", &disk) {
            Some(output) => refused(&output, &[&at, "umount"]),
            None => return,
        }
    }
    drop(device);
    taken(&boot(&image));
}

fn mounted_read_only() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let Some(device) = scene.attach(true) else {
        return;
    };
    let image = scene.place("d.img");
    let beside = |disk: &str| scene.boot_beside(&device.path, "ro", disk);
    if let (Some(reader), Some(writer)) = (beside(&format!("{image},ro")), beside(&image)) {
        taken(&reader);
        refused(&writer, &["is mounted at"]);
    }
}

fn attached() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let Some(device) = scene.attach(true) else {
        return;
    };
    let image = scene.place("d.img");
    let name = device.path.display();
    let told = format!("in use by this host: it is attached to `{name}`");
    let help = format!("losetup -d {name}");
    refused(&boot(&image), &[&told, &help]);
    let reader = boot(&format!("{image},ro"));
    refused(&reader, &[&told, &help, "losetup -r"]);
    taken(&boot(&name.to_string()));
}

/// The path that the kernel knows leads nowhere; the file is the same.
fn renamed() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let Some(_device) = scene.attach(true) else {
        return;
    };
    let other = scene.place("other.img");
    std::fs::hard_link(scene.place("d.img"), &other).unwrap();
    std::fs::remove_file(scene.place("d.img")).unwrap();
    refused(&boot(&other), &["it is attached to"]);
    // A new file of the old name is another one.
    File::create(scene.place("d.img"))
        .unwrap()
        .set_len(4096)
        .unwrap();
    taken(&boot(&scene.place("d.img")));
}

fn attached_read_only() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let Some(_device) = scene.attach(false) else {
        return;
    };
    let image = scene.place("d.img");
    taken(&boot(&format!("{image},ro")));
    refused(&boot(&image), &["it is attached to"]);
}

fn attached_twice() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let (Some(one), Some(other)) = (scene.attach(true), scene.attach(true)) else {
        return;
    };
    let told = format!("it is attached to `{}`", other.path.display());
    refused(&boot(one.path.to_str().unwrap()), &[&told]);
}

fn mounted_device() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let Some(device) = scene.attach(true) else {
        return;
    };
    let name = device.path.to_str().unwrap();
    let told = format!("`{name}` is mounted at `{}`", scene.place("mount point"));
    let beside = |options: &str, disk: &str| scene.boot_beside(&device.path, options, disk);
    let reader = format!("{name},ro");
    let (Some(writing), Some(reading)) = (beside("rw", name), beside("rw", &reader)) else {
        return;
    };
    refused(&writing, &[&told]);
    refused(&reading, &[&told]);
    taken(&beside("ro", &reader).unwrap());
}

fn other_vm() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let image = scene.place("d.img");
    let mut vm = kvmlet("spin");
    let vm = vm.args(["--disk", &image]).stdout(Stdio::piped());
    let mut vm = Running::spawn(vm);
    vm.expect_two_bytes();
    let process = crate::cli::vm_process(&vm);
    let told = format!("is in use already by process {process} (`kvmlet");
    refused(&boot(&image), &[&told]);
    refused(&boot(&format!("{image},ro")), &[&told, "to be written to"]);
}
