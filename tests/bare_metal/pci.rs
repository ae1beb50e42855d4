//! Devices on a PCI bus, driven by someone else's drivers.

use crate::cli::{kvmlet, run, text};
use crate::harness::{Guest, Test};
use crate::snapshot::{self, Worker, place};
use crate::virtio::{image, success};
use kvmlet_control::Order;
use kvmlet_spec::Disk;
use tempfile::NamedTempFile;

pub const TESTS: &[Test] = &[
    ("pci_has_room_for_more_disks_than_pins", many),
    ("pci_interrupts_by_messages_from_the_jail", jailed),
    ("a_function_goes_on_with_its_place_and_messages", saved),
];

/// More than an I/O APIC has pins for.
const MANY: usize = 21;

fn many() {
    let images: Vec<NamedTempFile> = (0..MANY)
        .map(|number| {
            let file = NamedTempFile::new().unwrap();
            let content = vec![number as u8 + 100; 4096 * (number + 1)];
            std::fs::write(file.path(), content).unwrap();
            file
        })
        .collect();
    let guest = Guest::boot_with("virtio_pci", |mut config| {
        for image in &images {
            config = config.disk(Disk::read_only(image.path()));
        }
        config.pci(true)
    });
    let output = success(guest);
    // The entropy source is the first.
    let functions = format!("functions={}", MANY + 1);
    assert!(output.contains(&functions), "{output}");
    for number in 0..MANY {
        let (sectors, first) = (8 * (number + 1), number + 100);
        let told = format!("disk {number}: sectors={sectors} first={first}\n");
        assert!(
            output.replace('\r', "").contains(&told),
            "{told:?}: {output}"
        );
    }
    assert!(output.contains("interrupts came"), "{output}");
}

fn jailed() {
    let image = image();
    let disk = image.path().to_str().unwrap();
    let output = run(kvmlet("virtio_pci").args(["--jail", "--pci", "--disk", disk]));
    let console = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{console}{}",
        text(&output.stderr)
    );
    assert!(console.contains("messages=2"), "{console}");
    assert!(console.contains("interrupts came"), "{console}");
}

/// Its registers are where its driver has put them, and its messages come as that has said: also in the one that goes on from
/// one that went on, in a jail and without one.
fn saved() {
    let (_place, file) = place();
    let image = snapshot::image(&file("disk"));
    let disk = ["--disk", &image];
    let machine = [&["--pci", "-m", "32M"], &disk[..]].concat();
    let mut vm = Worker::boot("saved", "pci=disk", &machine, &file("a"));
    for (name, walls) in [("b", &[][..]), ("c", &["--no-jail"]), ("d", &[])] {
        let come = loop {
            if let (_, _, come @ 1..) = vm.round_and_messages() {
                break come;
            }
        };
        // It writes nothing any more.
        vm.ask(Order::Pause);
        vm.save(&file("saved"));
        drop(vm);
        let arguments = [&disk[..], walls].concat();
        vm = Worker::restore(&file("saved"), &arguments, &file(name));
        while vm.round_and_messages().2 <= come + 3 {}
    }
    vm.end();
}
