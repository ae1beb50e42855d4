//! The end: everything written out, the exit code reported, the power off.

use core::ffi::CStr;

use alloc::ffi::CString;
use kvmlet_contract::machine::{EXIT_CODE_PORT, SLEEP_CONTROL_PORT, SLEEP_POWER_OFF};
use linux_raw_sys::general::{
    LINUX_REBOOT_CMD_POWER_OFF, LINUX_REBOOT_CMD_RESTART, MS_RDONLY, MS_REMOUNT, SIGKILL, WNOHANG,
};

use crate::sys::{self, File};
use crate::{console, read_text};

/// What has to be written out at the end and cannot be found in the mount table.
#[derive(Default)]
pub struct Written {
    /// The mount that holds the writable layer of the root: it is outside of the root.
    pub scratch: Option<File>,
}

/// Ends all processes, writes everything to the disks, reports `code` and powers off.
pub fn off(code: u8, written: &Written) -> ! {
    // As the kernel does in a container whose first process has ended.
    let _ = sys::kill(-1, SIGKILL as i32);
    reap_all();
    remount_read_only(written);
    at_once(code)
}

/// How long processes may take to end that were killed: a disk that does not answer keeps one for ever.
const END_OF_ALL_MS: u64 = 5000;

/// Waits for the end of all other processes, so that none uses a disk any more.
fn reap_all() {
    let deadline = sys::monotonic_ms() + END_OF_ALL_MS;
    loop {
        match sys::wait_any(WNOHANG) {
            Ok((0, _)) => {}
            Ok(_) => continue,
            // None is left.
            Err(_) => return,
        }
        let left = deadline.saturating_sub(sys::monotonic_ms());
        if left == 0 {
            console::say(format_args!("some processes do not end"));
            return;
        }
        // SIGCHLD, or another, which means nothing any more.
        let _ = sys::wait_for_signal(Some(left));
    }
}

/// Reports `code` and powers off with no more than what needs no memory and cannot fail.
pub fn at_once(code: u8) -> ! {
    sys::sync();
    // What the service wrote last may still be on its way through the serial port.
    let _ = sys::drain(1);
    report(code);
    // Some other VMM, or a kernel without /dev/port. To power off, the kernel needs ACPI; without it
    // it would halt and leave the VM running, so that it rather resets.
    let acpi = File::open(c"/sys/firmware/acpi", sys::O_RDONLY).is_ok();
    let command = if acpi {
        LINUX_REBOOT_CMD_POWER_OFF
    } else {
        LINUX_REBOOT_CMD_RESTART
    };
    let _ = sys::reboot(command);
    // Not reached, but for a kernel that cannot even reset; it panics when PID 1 ends.
    sys::exit(code)
}

/// Leaves the disks' file systems clean.
fn remount_read_only(written: &Written) {
    let remount = |target: &CStr| sys::mount(c"none", target, c"", MS_REMOUNT | MS_RDONLY, c"");
    let mounts = read_text(c"/proc/self/mounts").unwrap_or_default();
    // Fields are source, target, type, options (proc_pid_mounts(5)); later ones lie on top.
    for line in mounts.lines().rev() {
        let mut fields = line.split(' ');
        let (Some(source), Some(target), Some(fstype), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let holds_disk = source.starts_with("/dev/") || fstype == "overlay";
        if !holds_disk || !options.starts_with("rw") {
            continue;
        }
        if let Ok(path) = CString::new(target)
            && let Err(error) = remount(&path)
        {
            console::say(format_args!("cannot remount {target} read-only: {error}"));
        }
    }
    if let Some(scratch) = &written.scratch {
        // Only its descriptor still reaches it.
        if let Err(error) = remount(&scratch.proc_path()) {
            console::say(format_args!(
                "cannot remount the overlay's disk read-only: {error}"
            ));
        }
    }
}

/// Tells the VMM the exit code and asks it for the end. Returns if there is no kvmlet below.
fn report(code: u8) {
    let port = match File::open(c"/dev/port", sys::O_WRONLY) {
        Ok(port) => port,
        Err(error) => {
            console::say(format_args!(
                "cannot report exit code {code}: /dev/port: {error} (the guest kernel needs \
                 CONFIG_DEVPORT)"
            ));
            return;
        }
    };
    let _ = port.write_at(&[code], EXIT_CODE_PORT.into());
    let _ = port.write_at(&[SLEEP_POWER_OFF], SLEEP_CONTROL_PORT.into());
}
