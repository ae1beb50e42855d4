//! The network device under a hostile driver, with a socket for a tap that always has frames waiting.
#![no_main]

mod driver;

use kvmlet::config::{MacAddress, RateLimit};
use kvmlet::devices::virtio::net::{NetDevice, NetParams, Offloads, Port};
use libfuzzer_sys::fuzz_target;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

struct Socket(UnixDatagram);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Port for Socket {
    fn set_offloads(&self, _: Offloads) -> io::Result<()> {
        Ok(())
    }

    fn attach(&self, _: bool) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (ours, theirs) = UnixDatagram::pair().expect("a pair of sockets");
    theirs.set_nonblocking(true).expect("a socket that does not wait");
    // A frame and its header, as the fuzzer likes them.
    for frame in bytes.chunks(1526).take(4) {
        let _ = ours.send(frame);
    }
    let params = NetParams {
        name: "eth0".into(),
        mac: MacAddress::local([0; 5]),
        mtu: Some(1500),
        receive_limit: RateLimit::NONE,
        transmit_limit: RateLimit::NONE,
    };
    let (device, _handle) = NetDevice::new(params, vec![Arc::new(Socket(theirs))]).expect("a device");
    driver::drive(Box::new(device), bytes);
});
