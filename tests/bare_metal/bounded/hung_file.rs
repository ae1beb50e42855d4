//! A file whose reads and writes are never answered: the only one of a FUSE file system of the test's own
//! (linux/fuse.h).

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::NamedTempFile;

const BYTES: u64 = 1 << 30;

/// What is asked for.
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const RELEASE: u32 = 18;
const READ: u32 = 15;
const WRITE: u32 = 16;
const FORGET: u32 = 2;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
/// Reads and writes pass the page cache.
const DIRECT_IO: u32 = 1;

/// The file, in a mount namespace of the calling thread's. Requests end when it is dropped.
pub struct HungFile {
    place: NamedTempFile,
    server: libc::pid_t,
    asked: &'static AtomicBool,
}

impl HungFile {
    /// # Errors
    /// Where there is no FUSE, or no right to mount.
    pub fn new() -> io::Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let place = NamedTempFile::new()?;
        let asked = shared()?;
        let path = CString::new(place.path().as_os_str().as_bytes())?;
        let data = format!(
            "fd={},rootmode=100644,user_id=0,group_id=0",
            device.as_raw_fd()
        );
        let data = CString::new(data)?;
        // SAFETY: all strings end with a zero, and the child below makes none but system calls.
        unsafe {
            check(libc::unshare(libc::CLONE_NEWNS))?;
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let nothing = std::ptr::null();
            check(libc::mount(
                nothing,
                c"/".as_ptr(),
                nothing,
                private,
                nothing.cast(),
            ))?;
            let (kind, data) = (c"fuse".as_ptr(), data.as_ptr().cast());
            check(libc::mount(c"hung".as_ptr(), path.as_ptr(), kind, 0, data))?;
            let server = check(libc::fork())?;
            if server == 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // What other threads have open just now, as a lock, it would have for as long as it serves.
                let device_number = device.as_raw_fd().unsigned_abs();
                libc::syscall(libc::SYS_close_range, 3, device_number - 1, 0);
                libc::syscall(
                    libc::SYS_close_range,
                    device_number + 1,
                    libc::c_uint::MAX,
                    0,
                );
                serve(device, asked);
            }
            Ok(Self {
                place,
                server,
                asked,
            })
        }
    }

    pub fn path(&self) -> PathBuf {
        Path::new(self.place.path()).into()
    }

    /// Has anything been asked of it that is never answered?
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for HungFile {
    fn drop(&mut self) {
        // With the last descriptor of the device all requests fail.
        // SAFETY: the process is this one's child and has not been waited for.
        unsafe {
            libc::kill(self.server, libc::SIGKILL);
            libc::waitpid(self.server, std::ptr::null_mut(), 0);
            if let Ok(path) = CString::new(self.place.path().as_os_str().as_bytes()) {
                libc::umount2(path.as_ptr(), libc::MNT_DETACH);
            }
        }
    }
}

/// A word that a child has in common with this process, for as long as this lives.
fn shared() -> io::Result<&'static AtomicBool> {
    let (access, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a page of zeroes, which is never unmapped.
    Ok(unsafe { &*page.cast() })
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// Answers all but reads and writes, without allocating: other threads may have held the allocator's lock.
fn serve(mut device: File, asked: &AtomicBool) -> ! {
    static mut REQUEST: [u8; 1 << 18] = [0; 1 << 18];
    // SAFETY: this process has one thread.
    let request =
        unsafe { std::slice::from_raw_parts_mut((&raw mut REQUEST).cast::<u8>(), 1 << 18) };
    loop {
        match device.read(request) {
            Ok(40..) => {}
            // A request that was taken back before it was read (fuse(4)).
            Err(error)
                if [libc::ENOENT, libc::EINTR, libc::EAGAIN]
                    .map(Some)
                    .contains(&error.raw_os_error()) =>
            {
                continue;
            }
            // SAFETY: ends this process.
            _ => unsafe { libc::_exit(0) },
        }
        let word = |at: usize| {
            u32::from_le_bytes([
                request[at],
                request[at + 1],
                request[at + 2],
                request[at + 3],
            ])
        };
        let operation = word(4);
        let mut answer = [0u8; 16 + 128];
        let mut put =
            |at: usize, bytes: &[u8]| answer[16 + at..16 + at + bytes.len()].copy_from_slice(bytes);
        let (length, error) = match operation {
            INIT => {
                put(0, &7u32.to_le_bytes());
                put(4, &31u32.to_le_bytes());
                put(20, &(1u32 << 17).to_le_bytes());
                (64, 0)
            }
            GETATTR => {
                // attr_valid, then ino, size, ..., mode and nlink.
                put(0, &3600u64.to_le_bytes());
                put(16, &1u64.to_le_bytes());
                put(24, &BYTES.to_le_bytes());
                put(76, &0o100_644u32.to_le_bytes());
                put(80, &1u32.to_le_bytes());
                (104, 0)
            }
            OPEN => {
                put(8, &DIRECT_IO.to_le_bytes());
                (16, 0)
            }
            RELEASE | FLUSH => (0, 0),
            READ | WRITE => {
                asked.store(true, Ordering::Relaxed);
                continue;
            }
            FSYNC | FORGET | INTERRUPT => continue,
            _ => (0, -libc::ENOSYS),
        };
        answer[..4].copy_from_slice(&(16 + length as u32).to_le_bytes());
        answer[4..8].copy_from_slice(&error.to_le_bytes());
        answer[8..16].copy_from_slice(&request[8..16]);
        let _ = device.write(&answer[..16 + length]);
    }
}
