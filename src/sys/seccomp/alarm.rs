//! The end of a process one of whose threads has made a call that is not on its list.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// The exit code of the process: 128 and the number of SIGSYS, as a shell would say it.
pub const EXIT_CODE: u8 = 128 + libc::SIGSYS as u8;

/// Lines of a number and a name (Linux arch/x86/entry/syscalls/syscall_64.tbl).
const NAMES: &str = include_str!("syscalls.txt");

/// Where `siginfo_t` has the number of a call that was trapped: behind three integers and the address of the
/// call (sigaction(2), `si_syscall`).
const CALL_OFFSET: usize = 24;

thread_local! {
    /// The name of this thread. Constant initialization and no destructor make it safe to touch from a signal
    /// handler.
    static THREAD: Cell<[u8; 16]> = const { Cell::new([0; 16]) };
}

/// Keeps the name of this thread for a message: it cannot ask for it later.
pub fn remember_thread() {
    let mut name = [0; 16];
    // SAFETY: PR_GET_NAME writes up to 16 bytes with a zero at the end.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    THREAD.set(name);
}

/// Installs the handler for SIGSYS.
///
/// # Errors
/// What the kernel says.
pub fn install() -> io::Result<()> {
    // SAFETY: zero is valid for all fields, and means an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = on_trap as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler keeps to what a signal handler may do.
    match unsafe { libc::sigaction(libc::SIGSYS, &action, null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has a panic of any thread end the process at once, with this exit code, after saying where it was. `abort` would
/// make calls that are on no list, and the first process of a PID namespace ignores the signal that it sends
/// itself.
pub fn end_at_panic(exit_code: u8) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = THREAD.get();
        let name = thread.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        eprintln!("kvmlet: a bug: thread `{name}` {panic}");
        // SAFETY: ends the process.
        unsafe { libc::_exit(exit_code.into()) }
    }));
}

extern "C" fn on_trap(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands a whole siginfo_t of 128 bytes to a handler with SA_SIGINFO.
    let number = unsafe { info.cast::<u8>().add(CALL_OFFSET).cast::<u32>().read() };
    let thread = THREAD.get();
    let mut message = Message::default();
    message.add(b"kvmlet: thread `");
    message.add(thread.split(|byte| *byte == 0).next().unwrap_or_default());
    message.add(b"` made the system call `");
    message.add(name(number).as_bytes());
    message.add(b"` (");
    message.add(Decimal::of(number).text().as_bytes());
    message.add(b"), which it is not allowed to: the VM was ended. Either its guest has taken kvmlet over, or this is a bug.\n");
    // SAFETY: the bytes are there; both calls are on each list and safe in handlers.
    unsafe {
        libc::write(
            libc::STDERR_FILENO,
            message.text().as_ptr().cast(),
            message.text().len(),
        );
        libc::_exit(EXIT_CODE.into())
    }
}

/// The name of a system call.
fn name(number: u32) -> &'static str {
    let wanted = Decimal::of(number);
    let line = NAMES
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(number, _)| *number == wanted.text());
    line.map_or("unknown", |(_, name)| name)
}

/// Text in a fixed place: a signal handler must not allocate.
struct Message {
    bytes: [u8; 256],
    length: usize,
}

impl Default for Message {
    fn default() -> Self {
        Self {
            bytes: [0; 256],
            length: 0,
        }
    }
}

impl Message {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = *byte;
                self.length += 1;
            }
        }
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// A number in decimal digits.
struct Decimal {
    digits: [u8; 10],
    first: usize,
}

impl Decimal {
    fn of(mut number: u32) -> Self {
        let mut decimal = Self {
            digits: [b'0'; 10],
            first: 10,
        };
        loop {
            decimal.first -= 1;
            decimal.digits[decimal.first] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return decimal;
            }
        }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.digits[self.first..]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_names() {
        for (number, expected) in [
            (libc::SYS_read, "read"),
            (libc::SYS_openat, "openat"),
            (libc::SYS_rseq, "rseq"),
            (libc::SYS_pidfd_send_signal, "pidfd_send_signal"),
            (libc::SYS_mseal, "mseal"),
            (100_000, "unknown"),
        ] {
            assert_eq!(name(number as u32), expected);
        }
    }

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 7, 10, 4_294_967_295] {
            assert_eq!(Decimal::of(number).text(), number.to_string());
        }
    }
}
