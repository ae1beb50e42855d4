//! Frames between a thread of the host and a tap.

use kvmlet_host::net::{Tap, set_up};
use kvmlet_sys::wait::{self, Slot, Until};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// virtio_net_hdr_v1 in front of each frame of a tap.
const HEADER_BYTES: usize = 12;
/// Frames of one round.
pub(super) const FRAMES: u64 = 50_000;
/// Local experimental Ethertype 1 (IEEE 802), which nobody answers.
const ETHERTYPE: u16 = 0x88b5;
/// No frame for this long: none will come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Frames per second that a thread writes to a tap.
pub(super) fn send(bytes: usize) -> io::Result<f64> {
    let tap = own_tap()?;
    let mut frame = vec![0; HEADER_BYTES];
    frame.extend(self::frame(bytes));
    let queue = first_queue(&tap)?;
    let start = Instant::now();
    for _ in 0..FRAMES {
        rustix::io::write(queue, &frame)?;
    }
    Ok(FRAMES as f64 / start.elapsed().as_secs_f64())
}

/// Frames per second that a thread reads from a tap, into which another sends what it can.
pub(super) fn receive(bytes: usize) -> io::Result<f64> {
    let tap = own_tap()?;
    let flood = Flood::new(tap.name(), bytes)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| flood.run(&stop));
        let rate = read(&tap, bytes);
        stop.store(true, Ordering::Relaxed);
        rate
    })
}

fn read(tap: &Tap, bytes: usize) -> io::Result<f64> {
    let queue = first_queue(tap)?;
    let mut buffer = [0; 2048];
    let (mut taken, mut start) = (0, None);
    while taken < FRAMES {
        match rustix::io::read(queue, &mut buffer) {
            Ok(count) if count == HEADER_BYTES + bytes => {
                start.get_or_insert_with(Instant::now);
                taken += 1;
            }
            Ok(_) => {}
            Err(error) if error == rustix::io::Errno::AGAIN => {
                if !wait::one(Slot::readable(queue.as_fd()), Until::after(PATIENCE))? {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    let took = start.map_or(Duration::ZERO, |start: Instant| start.elapsed());
    Ok(taken as f64 / took.as_secs_f64())
}

fn first_queue(tap: &Tap) -> io::Result<&kvmlet_sys::tap::TapQueue> {
    let queue = tap.queues().first();
    Ok(queue.ok_or(io::ErrorKind::NotFound)?)
}

/// A tap of the benchmark's own, up.
fn own_tap() -> io::Result<Tap> {
    let tap = Tap::create("bench%d", 1).map_err(io::Error::other)?;
    set_up(tap.name())?;
    Ok(tap)
}

/// The name of a tap that is up and stays when nobody has it open, until the network namespace is gone.
pub(super) fn lasting_tap() -> io::Result<String> {
    let tap = own_tap()?;
    first_queue(&tap)?.outlast()?;
    Ok(tap.name().to_owned())
}

/// The interface in this thread's namespace whose name begins so.
pub(super) fn find(prefix: &str) -> io::Result<String> {
    let interfaces = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let mut names = interfaces
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim()));
    let name = names.find(|name| name.starts_with(prefix));
    Ok(name.ok_or(io::ErrorKind::NotFound)?.to_owned())
}

/// A frame with nothing in it, from one locally administered address to another.
fn frame(bytes: usize) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    frame.extend(ETHERTYPE.to_be_bytes());
    frame.resize(bytes, 0);
    frame
}

/// Frames without end into an interface: what its queue has no room for is lost, so there is no number to send.
pub(super) struct Flood {
    socket: File,
    frame: Vec<u8>,
}

impl Flood {
    pub fn new(interface: &str, bytes: usize) -> io::Result<Self> {
        Ok(Self {
            socket: packet_socket(interface)?,
            frame: frame(bytes),
        })
    }

    /// Sends until it is told to stop.
    pub fn run(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..64 {
                // ENOBUFS: the queue is full, which is what a flood is for.
                let _ = (&self.socket).write_all(&self.frame);
            }
        }
    }
}

/// A socket for frames of one type on one interface (packet(7)).
fn packet_socket(interface: &str) -> io::Result<File> {
    let name = std::ffi::CString::new(interface)?;
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    let protocol = ETHERTYPE.to_be();
    // SAFETY: no memory is involved; a descriptor that is returned is new.
    let file = unsafe {
        match libc::socket(libc::AF_PACKET, kind, protocol.into()) {
            -1 => return Err(io::Error::last_os_error()),
            fd => File::from_raw_fd(fd),
        }
    };
    // SAFETY: an address of zeros is one; the name is a string, and the structure is of the size given.
    let bound = unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        let bytes = size_of_val(&address) as u32;
        libc::bind(file.as_raw_fd(), (&raw const address).cast(), bytes)
    };
    match bound {
        0 => Ok(file),
        _ => Err(io::Error::last_os_error()),
    }
}
