//! Guest RAM that another program has, which is asked for each page when that is touched first: by the protocol of Firecracker's
//! page fault handlers (docs/snapshotting/handling-page-faults-on-snapshot-resume.md there). It is sent one message, of where regions
//! are, with a userfaultfd for this process's memory.

use super::{Backing, Error, GuestRam};
use crate::config::HugePages;
use kvmlet_sys::faults::Faults;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// A program that has a VM's memory.
#[derive(Debug)]
pub struct Pager {
    /// Where it listens, for messages.
    pub path: PathBuf,
    /// The connection to it.
    pub socket: OwnedFd,
    /// Where the same userfaultfd goes, with each region's first and last address, so that there is one when the program has ended.
    /// Otherwise what it has not given would be zeros then.
    pub keeper: Option<OwnedFd>,
}

/// Why a program cannot give guest memory.
#[derive(Debug, thiserror::Error)]
pub enum PagerError {
    /// The kernel has faults answered by nobody else, or not for this user.
    #[error("this host lets nobody else answer the page faults of a VM of this user")]
    Faults(#[source] io::Error),
    /// It is not there any more.
    #[error("the program at `{}`, which is to give guest memory, cannot be told where that is", path.display())]
    Untold {
        /// Where it listens.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl GuestRam {
    /// Maps private anonymous regions of which nothing is there, and tells the program that has them, behind each other from
    /// `start` on. It hears of what is given back if `removals` says so.
    ///
    /// # Errors
    /// When the host has not the address space or the huge pages, lets nobody answer faults, or the program is gone.
    pub fn of_pager(
        ranges: &[(GuestAddress, usize)],
        pages: HugePages,
        pager: &Pager,
        start: u64,
        removals: bool,
    ) -> Result<Self, Error> {
        let prefault = false;
        let ram = Self::allocate(ranges, Backing { pages, prefault })?;
        let large = pages == HugePages::Reserved;
        let faults = Faults::new(removals, large).map_err(PagerError::Faults)?;
        let (mut told, mut kept) = (Vec::new(), Vec::new());
        let (mut offset, page) = (start, pages.page_bytes());
        for region in ram.iter() {
            let (base, size) = (region.as_ptr() as u64, region.len());
            let registered = faults.register(base..base + size);
            registered.map_err(PagerError::Faults)?;
            // What the last one is called there has been bytes from the beginning.
            told.push(format!(
                r#"{{"base_host_virt_addr":{base},"size":{size},"offset":{offset},"page_size":{page},"page_size_kib":{page}}}"#
            ));
            kept.extend([base.to_le_bytes(), (base + size).to_le_bytes()]);
            offset += size;
        }
        let untold = |source: Errno| PagerError::Untold {
            path: pager.path.clone(),
            source: source.into(),
        };
        if let Some(keeper) = &pager.keeper {
            send(keeper, &kept.concat(), &faults).map_err(untold)?;
        }
        let message = format!("[{}]", told.join(","));
        send(&pager.socket, message.as_bytes(), &faults).map_err(untold)?;
        Ok(ram)
    }
}

fn send(socket: impl AsFd, bytes: &[u8], faults: &Faults) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [faults.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let bytes = [IoSlice::new(bytes)];
    rustix::io::retry_on_intr(|| sendmsg(&socket, &bytes, &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvmlet_sys::wait::{Slot, Until, one};
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use std::io::IoSliceMut;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::thread::spawn;
    use vm_memory::Bytes;

    const HIGH: u64 = 1 << 32;
    const UFFDIO_COPY: u32 = 0xc028_aa03;
    const PAGE_FAULT: u8 = 0x12;
    const REMOVE: u8 = 0x15;

    fn received(from: &UnixStream) -> (String, OwnedFd) {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let told = recvmsg(from, &mut parts, &mut control, RecvFlags::empty()).unwrap();
        let mut all = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let text = String::from_utf8(bytes[..told.bytes].to_vec()).unwrap();
        (text, all.next().unwrap())
    }

    /// What happens next, with the address that it happens to.
    fn event(faults: &OwnedFd) -> (u8, u64) {
        let mut event = [0; 32];
        while rustix::io::read(faults, &mut event).is_err() {
            one(Slot::readable(faults.as_fd()), Until::Forever).unwrap();
        }
        let place = if event[0] == PAGE_FAULT { 16 } else { 8 };
        let address = event[place..place + 8].try_into().unwrap();
        (event[0], u64::from_ne_bytes(address))
    }

    fn fill(faults: &OwnedFd, address: u64, byte: u8) {
        let page = [byte; 4096];
        let mut copy = [address & !4095, page.as_ptr() as u64, 4096, 0, 0];
        // SAFETY: the kernel reads a page of this process, and writes to the structure.
        let done = unsafe { libc::ioctl(faults.as_raw_fd(), UFFDIO_COPY as _, copy.as_mut_ptr()) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }

    /// Each page is asked for once, and again when it was given back.
    #[test]
    fn pages_are_asked_for_where_they_are_said_to_be() {
        if let Err(error) = Faults::new(false, false) {
            return println!("SKIPPED: not for this user: {error}");
        }
        let (here, there) = UnixStream::pair().unwrap();
        let pager = Pager {
            path: "there".into(),
            socket: here.into(),
            keeper: None,
        };
        let ranges = [(GuestAddress(0), 1 << 20), (GuestAddress(HIGH), 2 << 20)];
        let ram = GuestRam::of_pager(&ranges, HugePages::Off, &pager, 0x5000, true).unwrap();
        let (told, faults) = received(&there);
        let [low, high] =
            [0, HIGH].map(|start| ram.get_host_address(GuestAddress(start)).unwrap() as u64);
        let region = |base: u64, size: u64, offset: u64| {
            format!(
                r#"{{"base_host_virt_addr":{base},"size":{size},"offset":{offset},"page_size":4096,"page_size_kib":4096}}"#
            )
        };
        let (first, second) = (
            region(low, 1 << 20, 0x5000),
            region(high, 2 << 20, 0x10_5000),
        );
        assert_eq!(told, format!("[{first},{second}]"));
        let guest = spawn(move || {
            let place = GuestAddress(HIGH + 0x3000);
            let read = || ram.read_obj::<u64>(place).unwrap();
            let seen = [read(), read()];
            assert!(ram.gives_back());
            assert_eq!(ram.give_back(place, 4096).unwrap(), 4096);
            (seen, read())
        });
        assert_eq!(event(&faults), (PAGE_FAULT, high + 0x3000));
        fill(&faults, high + 0x3000, 7);
        assert_eq!(event(&faults), (REMOVE, high + 0x3000));
        let (kind, address) = event(&faults);
        assert_eq!((kind, address), (PAGE_FAULT, high + 0x3000));
        fill(&faults, address, 0);
        let sevens = u64::from_ne_bytes([7; 8]);
        assert_eq!(guest.join().unwrap(), ([sevens; 2], 0));
    }
}
