//! Drives VMs of kvmlet's by firepilot, unchanged: from description to end, as far as it has calls. It knows no snapshots and no
//! limits.
//!
//! By hand, since it takes packages from crates.io: `cargo run -- KVMLET-SERVE KERNEL`, where the kernel is the bare-metal
//! guest `power_button`, and `kvmlet` lies beside the first.

use firepilot::builder::drive::DriveBuilder;
use firepilot::builder::executor::FirecrackerExecutorBuilder;
use firepilot::builder::kernel::KernelBuilder;
use firepilot::builder::{Builder, Configuration};
use firepilot::machine::Machine;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the VM says of itself, which firepilot does not ask.
fn state(socket: &Path) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (_, rest) = text.split_once("\"state\":\"")?;
    Some(rest.split_once('"')?.0.to_owned())
}

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [serve, kernel] = &words[..] else {
        panic!("client KVMLET-SERVE KERNEL");
    };
    let place = std::env::temp_dir().join(format!("firepilot-{}", std::process::id()));
    std::fs::create_dir_all(&place).expect("a place");
    let firecracker = place.join("firecracker");
    symlink(serve, &firecracker).expect("a link");
    let disk = place.join("disk");
    let file = std::fs::File::create(&disk).expect("a disk");
    file.set_len(8 << 20).expect("a disk");

    for (id, by_force) in [("one", true), ("two", false)] {
        let kernel = KernelBuilder::new()
            .with_kernel_image_path(kernel.clone())
            .with_boot_args("console=ttyS0".into())
            .try_build()
            .expect("a kernel");
        let drive = DriveBuilder::new()
            .with_drive_id("rootfs".into())
            .with_path_on_host(disk.clone())
            .as_read_only()
            .as_root_device()
            .try_build()
            .expect("a drive");
        let executor = FirecrackerExecutorBuilder::new()
            .with_chroot(place.to_str().expect("UTF-8").into())
            .with_exec_binary(firecracker.clone())
            .try_build()
            .expect("an executor");
        let config = Configuration::new(id.into())
            .with_kernel(kernel)
            .with_executor(executor)
            .with_drive(drive);
        let mut vm = Machine::new();
        vm.create(config).await.expect("it is described");
        let socket = place.join(id).join("firecracker.socket");
        assert_eq!(state(&socket).as_deref(), Some("Not started"));
        vm.start().await.expect("the guest runs");
        assert_eq!(state(&socket).as_deref(), Some("Running"));
        vm.pause().await.expect("it pauses");
        assert_eq!(state(&socket).as_deref(), Some("Paused"));
        vm.resume().await.expect("it goes on");
        assert_eq!(state(&socket).as_deref(), Some("Running"));
        if by_force {
            vm.kill().await.expect("it ends");
        } else {
            // Its guest hears the button once it has begun to listen.
            let since = Instant::now();
            while vm.stop().await.is_err() {
                assert!(since.elapsed() < Duration::from_secs(60), "no button");
            }
            while state(&socket).is_some() {
                assert!(since.elapsed() < Duration::from_secs(60), "it goes on");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert_eq!(state(&socket), None);
    }
    std::fs::remove_dir_all(&place).expect("nothing is in use");
    println!("firepilot: ok");
}
