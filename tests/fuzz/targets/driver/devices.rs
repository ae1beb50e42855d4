//! The devices that are driven, each on the least of a host that it works with.

use kvmlet::MemorySize;
use kvmlet::config::{Balloon, Disk, MacAddress, RateLimit};
use kvmlet::devices::virtio::VirtioDevice;
use kvmlet::devices::virtio::balloon::{BalloonDevice, BalloonHandle};
use kvmlet::devices::virtio::block::BlockDevice;
use kvmlet::devices::virtio::net::{NetDevice, NetParams, Offloads, Port};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

static IMAGE: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("kvmlet-fuzz-{}.img", std::process::id()));
    std::fs::write(&path, vec![0; 1 << 20]).expect("an image");
    path
});

/// A disk on a real file, with keys of `--disk`.
pub fn block(keys: &str) -> Box<dyn VirtioDevice> {
    let disk: Disk = format!("{},{keys}", IMAGE.display())
        .parse()
        .expect("a disk");
    let (device, _handle) = BlockDevice::open(&disk, 0).expect("an image that opens");
    Box::new(device)
}

/// A socket for a tap.
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

/// An interface with frames waiting for it, each with its header, as the fuzzer likes them.
pub fn net(frames: &[u8]) -> Box<dyn VirtioDevice> {
    let (ours, theirs) = UnixDatagram::pair().expect("a pair of sockets");
    theirs
        .set_nonblocking(true)
        .expect("a socket that does not wait");
    for frame in frames.chunks(1526).take(4) {
        let _ = ours.send(frame);
    }
    let params = NetParams {
        name: "eth0".into(),
        mac: MacAddress::local([0; 5]),
        mtu: Some(1500),
        receive_limit: RateLimit::NONE,
        transmit_limit: RateLimit::NONE,
    };
    let (device, _handle) =
        NetDevice::new(params, vec![Arc::new(Socket(theirs))]).expect("a device");
    Box::new(device)
}

/// A balloon with all that it can do, which may hold 48 MiB.
pub fn balloon() -> (BalloonDevice, BalloonHandle) {
    BalloonDevice::new(&Balloon::default(), 64.mib()).expect("events")
}
