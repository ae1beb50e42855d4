//! A program that gives VMs their memory from a file, as small as one can be: it listens at a Unix socket, is sent a userfaultfd with
//! the places of regions, and answers each fault with the page of the file. Tests start themselves as it.

use crate::patience::eventually;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;
use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const WORD: &str = "a-pager-of-tests";

/// What is unusual about one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Oddities {
    /// It closes the connection once it has its message, and serves on.
    pub closes: bool,
    /// It answers no more than so many faults, and stays.
    pub most: Option<u64>,
    /// It takes nothing from the connection, and closes it.
    pub refuses: bool,
}

/// One that runs. It is killed in the end.
pub struct Pager {
    child: Child,
    socket: PathBuf,
    answered: PathBuf,
}

impl Pager {
    /// One that has the content of a file, and listens already.
    pub fn start(socket: &Path, file: &Path, oddities: Oddities) -> Self {
        let answered = socket.with_extension("answered");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(WORD).arg(socket).arg(file).arg(&answered);
        command.args([
            oddities.closes.to_string(),
            oddities.most.unwrap_or(u64::MAX).to_string(),
            oddities.refuses.to_string(),
        ]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        Self {
            child,
            socket: socket.into(),
            answered,
        }
    }

    /// How many faults it has answered.
    pub fn answered(&self) -> u64 {
        let text = std::fs::read_to_string(&self.answered).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Waits until it has answered so many.
    pub fn expect(&self, faults: u64) {
        eventually("it has answered", || self.answered() >= faults);
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program does that was started as one. Any other goes on.
pub fn init() {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).is_none_or(|word| word != WORD) {
        return;
    }
    let listener = UnixListener::bind(&words[2]).unwrap();
    let file = Arc::new(File::open(&words[3]).unwrap());
    let told = Arc::new(File::create(&words[4]).unwrap());
    let (closes, most, refuses) = (words[5] == "true", &words[6], words[7] == "true");
    let (most, answered) = (most.parse().unwrap(), Arc::new(AtomicU64::new(0)));
    println!("listens");
    for connection in listener.incoming() {
        let connection = connection.unwrap();
        if refuses {
            continue;
        }
        let (file, told, answered) = (Arc::clone(&file), Arc::clone(&told), Arc::clone(&answered));
        std::thread::spawn(move || {
            let (regions, faults) = receive(&connection);
            // A connection that is kept is closed when the pager ends.
            let kept = (!closes).then_some(connection);
            let mut removed = Vec::new();
            while answered.load(SeqCst) < most {
                let Some(removal) = answer(&faults, &regions, &file, &removed) else {
                    let count = answered.fetch_add(1, SeqCst) + 1;
                    told.write_all_at(format!("{count:20}").as_bytes(), 0)
                        .unwrap();
                    continue;
                };
                removed.push(removal);
            }
            std::mem::forget((faults, kept));
        });
    }
    std::process::exit(0);
}

/// The host's addresses of a region, what is there of the file, and the size of pages.
struct Region {
    addresses: Range<u64>,
    offset: u64,
    page: u64,
}

fn receive(connection: &UnixStream) -> (Vec<Region>, OwnedFd) {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(
        connection,
        &mut parts,
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let count = received.bytes;
    let faults = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let told: Vec<Value> = serde_json::from_slice(&bytes[..count]).unwrap();
    let region = |told: &Value| {
        let number = |key: &str| told[key].as_u64().unwrap();
        assert_eq!(number("page_size"), number("page_size_kib"));
        let start = number("base_host_virt_addr");
        Region {
            addresses: start..start + number("size"),
            offset: number("offset"),
            page: number("page_size"),
        }
    };
    (told.iter().map(region).collect(), faults.unwrap())
}

const EVENT_REMOVE: u8 = 0x15;
const UFFDIO_WAKE: u32 = 0x8010_aa02;
const UFFDIO_COPY: u32 = 0xc028_aa03;

/// Waits for an event, and answers a fault, or returns what memory was given back: that is zeros from then on.
fn answer(
    faults: &OwnedFd,
    regions: &[Region],
    file: &File,
    removed: &[Range<u64>],
) -> Option<Range<u64>> {
    use kvmlet_sys::wait::{Slot, Until, one};
    // linux/userfaultfd.h: `struct uffd_msg`.
    let mut event = [0; 32];
    loop {
        one(Slot::readable(faults.as_fd()), Until::Forever).unwrap();
        match rustix::io::read(faults, &mut event) {
            Ok(_) => break,
            Err(error) => assert_eq!(error, rustix::io::Errno::AGAIN),
        }
    }
    let number = |place: usize| u64::from_ne_bytes(event[place..place + 8].try_into().unwrap());
    if event[0] == EVENT_REMOVE {
        return Some(number(8)..number(16));
    }
    let address = number(16);
    let region = regions.iter().find(|it| it.addresses.contains(&address));
    let region = region.unwrap();
    let start = address / region.page * region.page;
    let mut page = vec![0; region.page as usize];
    if !removed.iter().any(|range| range.contains(&start)) {
        let place = region.offset + (start - region.addresses.start);
        file.read_exact_at(&mut page, place).unwrap();
    }
    let mut copy = [start, page.as_ptr() as u64, region.page, 0, 0];
    // SAFETY: the kernel reads a page of this process, and writes to the structure.
    while unsafe { libc::ioctl(faults.as_raw_fd(), UFFDIO_COPY as _, copy.as_mut_ptr()) } != 0 {
        match io::Error::last_os_error().raw_os_error().unwrap() {
            // Its memory is just being changed.
            libc::EAGAIN => {}
            libc::EEXIST => {
                let mut range = [start, region.page];
                // SAFETY: the kernel reads a structure of two numbers.
                unsafe { libc::ioctl(faults.as_raw_fd(), UFFDIO_WAKE as _, range.as_mut_ptr()) };
                break;
            }
            // The VM is gone.
            libc::ESRCH | libc::ENOENT => break,
            other => panic!("error {other}"),
        }
    }
    None
}
