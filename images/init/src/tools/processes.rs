//! Which processes there are.

use alloc::format;
use alloc::string::String;
use core::ffi::CStr;

use kvmlet_contract::channel::GuestProcess;

use crate::runtime;
use crate::service::c_string;
use crate::sys::{self, Errno, File};

/// In Linux's user space a second of processor time has as many ticks, whatever the kernel was built with (USER_HZ).
const TICK_MS: u64 = 10;
const PAGE_KIB: u64 = 4;

/// Writes them to standard output. One that ends meanwhile is left out, and this one.
pub fn list() -> Result<(), String> {
    let failed = |error: Errno| format!("list the processes: {error}");
    let directory = File::open(c"/proc", sys::O_RDONLY | sys::O_DIRECTORY).map_err(failed)?;
    let mut written = Ok(());
    let mut see = |name: &CStr| {
        let Some(pid) = name.to_str().ok().and_then(|name| name.parse().ok()) else {
            return;
        };
        if i64::from(pid) == i64::from(sys::getpid()) {
            return;
        }
        // SAFETY: what it hands out, an error number, is in no memory of the arena.
        let result = unsafe { runtime::scoped(|| tell(pid)) };
        written = core::mem::replace(&mut written, Ok(())).and(result);
    };
    directory.each_entry(&mut see).map_err(failed)?;
    written.map_err(|error| format!("write the list of processes: {error}"))
}

fn tell(pid: u32) -> Result<(), Errno> {
    let Some(line) = line_of(pid) else {
        return Ok(());
    };
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        let count = sys::write(1, rest)?;
        rest = &rest[count..];
    }
    Ok(())
}

/// From proc_pid_stat(5), proc_pid_status(5) and proc_pid_cmdline(5).
fn line_of(pid: u32) -> Option<String> {
    let stat = start_of(&format!("/proc/{pid}/stat"))?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    // The first one is the third of stat.
    let mut fields = rest.split_ascii_whitespace().skip(1);
    let mut number = |skipped: usize| fields.nth(skipped)?.parse::<u64>().ok();
    let parent = number(0)?;
    let (user, system) = (number(9)?, number(0)?);
    let pages = number(8)?;
    let status = start_of(&format!("/proc/{pid}/status"))?;
    let uid = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:\t"))?;
    let arguments = start_of(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = match arguments.trim_end_matches('\0') {
        "" => format!("[{name}]"),
        arguments => arguments.replace('\0', " "),
    };
    let process = GuestProcess {
        pid,
        parent: u32::try_from(parent).ok()?,
        uid: uid.split_ascii_whitespace().next()?.parse().ok()?,
        cpu_ms: (user + system).saturating_mul(TICK_MS),
        rss_kib: pages.saturating_mul(PAGE_KIB),
        command: &command,
    };
    Some(process.to_line())
}

/// The first bytes of a file; nothing if it is gone. What is not UTF-8 is replaced.
fn start_of(path: &str) -> Option<String> {
    let mut bytes = [0; 4096];
    let file = File::open(&c_string(path), sys::O_RDONLY).ok()?;
    let count = file.read(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
}
