//! `kvmlet-init`, the first process of a kvmlet guest.
//!
//! It prepares the guest's user space, runs one command as the service, forwards signals to it,
//! reaps whatever is orphaned, tells the VMM the service's exit code and powers off.
//!
//! It is written without the standard library and libc: on a host whose KVM interprets guest
//! kernel code, every page of PID 1 that is unpacked, every page fault and every system call of a
//! runtime's start is seen in the boot time, and a static hello world on glibc is 1 MB and 40
//! system calls. So everything here asks the kernel directly, and as rarely as it can.

#![no_std]
#![no_main]

extern crate alloc;

mod agent;
mod appear;
mod console;
mod etc;
mod identity;
mod launch;
mod layer;
mod modules;
mod mounts;
mod network;
mod place;
mod power;
mod root;
mod runtime;
mod service;
mod supervise;
mod sys;
mod tools;
mod volume;

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use kvmlet_contract::{EXIT_INIT_FAILED, GuestSpec, SERVICE_FILE, ServiceSpec};
use linux_raw_sys::general::O_NONBLOCK;
use sys::Errno;

/// Why the service does not run: the rest of a sentence that starts with "cannot", and the exit
/// code that says so.
struct Failure {
    message: String,
    code: u8,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self {
            message,
            code: EXIT_INIT_FAILED,
        }
    }
}

/// What [`runtime`] calls once there is a stack. A process that the agent starts with one of its tools has the tool's name, and
/// maybe an argument.
fn main(name: Option<&CStr>, argument: Option<&CStr>) -> ! {
    if sys::getpid() != 1 {
        if let Some(tool) = name.and_then(tools::Tool::named) {
            tool.run(argument);
        }
        console::say(format_args!(
            "cannot run: this is the init of a guest, not a command"
        ));
        sys::exit(EXIT_INIT_FAILED);
    }
    // From the start: one that comes early is kept for later, not lost.
    sys::block_all_signals();
    let mut written = power::Written::default();
    let code = run(&mut written).unwrap_or_else(|failure| {
        console::say(format_args!("cannot {}", failure.message));
        failure.code
    });
    power::off(code, &written)
}

/// Sets everything up, runs the service and returns its exit code.
fn run(written: &mut power::Written) -> Result<u8, Failure> {
    mounts::early()?;
    console::ensure_stdio();
    modules::load();
    let cmdline = read_text(c"/proc/cmdline").map_err(|e| format!("read /proc/cmdline: {e}"))?;
    let guest = GuestSpec::from_cmdline(&cmdline)
        .map_err(|e| format!("understand the kernel command line: {e}"))?;
    // The host answers while the rest is prepared.
    let link = guest.agent.as_ref().map(agent::Link::open).transpose()?;
    if let Some(spec) = &guest.root {
        written.scratch = root::enter(spec)?;
    }
    mounts::rest();
    if let Some(name) = &guest.hostname {
        sys::sethostname(name).map_err(|e| format!("set the host name \"{name}\": {e}"))?;
    }
    network::configure(&guest.networks)?;
    if let Some(link) = link {
        return Ok(agent::run(link, &guest)?);
    }
    let timeout_ms = u64::from(guest.stop_timeout_s()) * 1000;
    let spec = guest.service.over(service_file()?);
    let service = service::start(&spec, guest.console)?;
    Ok(supervise::until_end(service, timeout_ms))
}

/// What the image says about its service; nothing if it says nothing.
pub(crate) fn service_file() -> Result<ServiceSpec, String> {
    let path = CString::new(SERVICE_FILE).unwrap_or_default();
    match read_text(&path) {
        Ok(text) => {
            ServiceSpec::from_json(&text).map_err(|e| format!("understand {SERVICE_FILE}: {e}"))
        }
        Err(Errno::ENOENT) => Ok(ServiceSpec::default()),
        Err(e) => Err(format!("read {SERVICE_FILE}: {e}")),
    }
}

/// Reads a small text file. What is not UTF-8 is replaced, which no valid value survives. Somebody may have put something else
/// there, such as a pipe without a writer, which is not waited for.
fn read_text(path: &CStr) -> Result<String, Errno> {
    const LIMIT: usize = 64 << 10;
    let file = sys::File::open(path, sys::O_RDONLY | sys::O_NOCTTY | O_NONBLOCK)?;
    let mut chunk = [0; 4096];
    let mut bytes = Vec::new();
    while bytes.len() <= LIMIT {
        let read = file.read(&mut chunk)?;
        bytes.extend_from_slice(&chunk[..read]);
        // procfs hands out whole lines, so that a read can stop short of the file's end, but only
        // where the next line does not fit.
        if read < chunk.len() / 2 {
            return Ok(match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
            });
        }
    }
    Err(Errno::EFBIG)
}
