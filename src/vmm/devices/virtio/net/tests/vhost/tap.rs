//! The device whose queues are served by the host's kernel, on a real tap: all of the contract, where the host has vhost-net.

use super::super::tap::isolation::isolated;
use super::*;
use crate::devices::virtio::contract::{self, Subject, over_pci, place};
use kvmlet_sys::tap::{TapQueue, Unattached};
use kvmlet_sys::vhost::VhostNet;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::process::Command;

#[path = "../../../../../../../tests/harness/packets.rs"]
#[allow(dead_code)] // part of it is for tests of VMs
mod packets;

/// A device that the kernel serves, on a tap that nothing else uses.
struct Served {
    driver: FakeDriver,
    tap: Arc<TapQueue>,
    far: File,
}

fn tap() -> (Arc<TapQueue>, CString) {
    let (queue, name) = Unattached::open().unwrap().attach("vh%d", false).unwrap();
    // The host's own frames would come between.
    let quiet = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    let _ = std::fs::write(quiet, "1");
    let up = Command::new("ip")
        .args(["link", "set", &name, "up"])
        .status();
    assert!(up.unwrap().success());
    (Arc::new(queue), CString::new(name).unwrap())
}

impl Served {
    fn new() -> Self {
        let (queue, name) = tap();
        let spec = NetSpec {
            params: params(),
            ports: vec![queue.clone()],
        };
        let (device, _) = spec.build().unwrap();
        let mut driver = FakeDriver::new(Box::new(device));
        driver.start(!EVENT_IDX);
        let far = packets::packet_socket(&name);
        Self {
            driver,
            tap: queue,
            far,
        }
    }
}

fn payload(number: u16) -> Vec<u8> {
    frame(100, number as u8)
}

/// Frames from the guest.
struct Sending(Served);

/// Frames to the guest.
struct Receiving(Served);

impl Subject for Sending {
    const QUEUE: usize = TX;
    const DESCRIPTORS: u16 = 1;
    /// Where there is such a kernel, all else is emulated.
    const RESTS: u32 = 50;

    fn ready() -> Self {
        Self(Served::new())
    }

    fn driver(&mut self) -> &mut FakeDriver {
        &mut self.0.driver
    }

    fn describe(&mut self, number: u16, head: u16) {
        let bytes = [&[0; HEADER][..], &packets::frame(&payload(number))].concat();
        self.0.driver.put(place(number), &bytes);
        let descriptor = (place(number), bytes.len() as u32, 0, 0);
        self.0.driver.describe(TX, head, descriptor);
    }

    fn check(&mut self, number: u16, written: u32) {
        assert_eq!(written, 0);
        let mut bytes = [0; 2048];
        let count = self.0.far.read(&mut bytes).unwrap();
        assert_eq!(bytes[14..count], payload(number));
    }

    fn start(&mut self) {
        // What was sent before the reset.
        while rustix::net::recv(
            &self.0.far,
            &mut [0; 4096],
            rustix::net::RecvFlags::DONTWAIT,
        )
        .is_ok()
        {}
        self.0.driver.forget_queues();
        self.0.driver.start(!EVENT_IDX);
    }
}

impl Subject for Receiving {
    const QUEUE: usize = RX;
    const DESCRIPTORS: u16 = 1;
    /// Where there is such a kernel, all else is emulated.
    const RESTS: u32 = 50;

    fn ready() -> Self {
        Self(Served::new())
    }

    fn driver(&mut self) -> &mut FakeDriver {
        &mut self.0.driver
    }

    fn describe(&mut self, number: u16, head: u16) {
        let descriptor = (place(number), 2048, WRITE, 0);
        self.0.driver.describe(RX, head, descriptor);
    }

    fn prompt(&mut self, requests: u16) {
        for number in 0..requests {
            let frame = packets::frame(&payload(number));
            self.0.far.write_all(&frame).unwrap();
        }
    }

    /// The kernel looks at buffers when it has a frame to put there.
    fn provoke(&mut self) {
        let frame = packets::frame(&payload(0));
        self.0.far.write_all(&frame).unwrap();
    }

    fn start(&mut self) {
        // What came before the reset.
        while rustix::io::read(&self.0.tap, &mut [0; 4096]).is_ok() {}
        self.0.driver.forget_queues();
        self.0.driver.start(!EVENT_IDX);
    }

    fn check(&mut self, number: u16, written: u32) {
        assert_eq!(written as usize, HEADER + 114);
        let at = place(number) + HEADER as u64 + 14;
        assert_eq!(self.0.driver.bytes(at, 100), payload(number));
    }
}

/// All of the contract, on the kernel's own rings.
fn keeps_to_the_contract<S: Subject>() {
    let each: [fn(); 6] = [
        contract::a_reset_in_the_midst_of_traffic_is_a_new_beginning::<S>,
        contract::a_pause_in_the_midst_of_traffic_loses_nothing::<S>,
        contract::it_sleeps_in_the_midst_of_traffic_and_wakes::<S>,
        contract::it_rests_in_the_midst_of_traffic_and_loses_nothing::<S>,
        contract::what_no_device_could_have_told_is_refused::<S>,
        contract::a_sleeper_can_be_reset::<S>,
    ];
    for test in each {
        test();
        over_pci(test);
    }
}

/// Prints why not, where the host has no vhost-net.
fn is_there() -> bool {
    let there = VhostNet::open();
    if let Err(error) = &there {
        println!("SKIPPED: /dev/vhost-net: {error}");
    }
    there.is_ok()
}

const MODULE: &str = "devices::virtio::net::tests::vhost::tap";

#[test]
fn sending_by_the_kernel_keeps_to_the_contract() {
    if is_there() {
        let test = format!("{MODULE}::sending_by_the_kernel_keeps_to_the_contract");
        isolated(&test, keeps_to_the_contract::<Sending>);
    }
}

#[test]
fn receiving_by_the_kernel_keeps_to_the_contract() {
    if is_there() {
        let test = format!("{MODULE}::receiving_by_the_kernel_keeps_to_the_contract");
        isolated(&test, keeps_to_the_contract::<Receiving>);
    }
}
