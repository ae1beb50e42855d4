//! How often the descendants of this thread enter guests, and what CPU time they spend there and elsewhere, by the
//! kernel's tracepoints (perf_event_open(2)).
//!
//! Every KVM_RUN is an `ioctl`, so its beginning and end are tracepoints of that system call; with the switches of
//! threads to and from CPUs they tell CPU time inside and outside exactly, for any VMM. It takes root.

mod account;
mod ring;

pub use account::KvmUse;
use account::{Account, What};
use ring::Ring;
use rustix::ioctl::opcode;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// `_IO(KVMIO, 0x80)` (linux/kvm.h).
const KVM_RUN: u32 = 0xae80;

/// Watches all processes that the calling thread starts from now on, with their threads and children.
#[derive(Debug)]
pub struct KvmWatch {
    rings: Vec<Ring>,
    events: Vec<Event>,
}

#[derive(Debug)]
struct Event {
    fd: OwnedFd,
    id: u64,
    what: What,
}

impl KvmWatch {
    /// Begins to watch. `tracefs` is where the file system `tracefs` is mounted.
    ///
    /// # Errors
    /// When the kernel has no such tracepoints, or does not let this user use them.
    pub fn begin(tracefs: &Path) -> io::Result<Self> {
        let number = |name: &str| -> io::Result<u64> {
            let text = fs::read_to_string(tracefs.join("events/syscalls").join(name).join("id"))?;
            text.trim().parse().map_err(io::Error::other)
        };
        let (enter, leave) = (number("sys_enter_ioctl")?, number("sys_exit_ioctl")?);
        let mut watch = Self {
            rings: Vec::new(),
            events: Vec::new(),
        };
        for cpu in online_cpus()? {
            let first = Event::open(enter, What::Enter, cpu)?;
            first.filter(&format!("cmd == {KVM_RUN}"))?;
            let second = Event::open(leave, What::Leave, cpu)?;
            watch.rings.push(Ring::map(&first.fd)?);
            second.write_into(&first)?;
            watch.events.extend([first, second]);
        }
        for event in &watch.events {
            event.control(opcode::none(b'$', 0), 0)?; // PERF_EVENT_IOC_ENABLE
        }
        Ok(watch)
    }

    /// Stops watching, and returns what was done until `until`, in nanoseconds of CLOCK_MONOTONIC.
    ///
    /// # Errors
    /// When there was more than could be kept.
    pub fn end(self, until: u64) -> io::Result<KvmUse> {
        for event in &self.events {
            event.control(opcode::none(b'$', 1), 0)?; // PERF_EVENT_IOC_DISABLE
        }
        let what = |id| {
            self.events
                .iter()
                .find(|event| event.id == id)
                .map(|event| event.what)
        };
        let mut records = Vec::new();
        for ring in &self.rings {
            records.extend(ring.records(what)?);
        }
        records.sort_by_key(|record| record.time);
        let own = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        let mut account = Account::default();
        for record in records
            .iter()
            .filter(|record| record.thread != own && record.time <= until)
        {
            account.add(*record);
        }
        Ok(account.close(until))
    }
}

impl Event {
    /// A tracepoint on one CPU, for this thread and its descendants, not yet enabled.
    fn open(tracepoint: u64, what: What, cpu: i32) -> io::Result<Self> {
        const TYPE_TRACEPOINT: u32 = 2;
        // PERF_SAMPLE_TID, _TIME, _ID
        const SAMPLE: u64 = 1 << 1 | 1 << 2 | 1 << 6;
        // disabled, inherit, sample_id_all, use_clockid
        const FLAGS: u64 = 1 | 1 << 1 | 1 << 18 | 1 << 25;
        // task, context_switch
        const COMINGS_AND_GOINGS: u64 = 1 << 13 | 1 << 26;
        let attributes = Attributes {
            kind: TYPE_TRACEPOINT,
            size: size_of::<Attributes>() as u32,
            config: tracepoint,
            sample_period: 1,
            sample_type: SAMPLE,
            // Switches and ends of threads come with the first event of each CPU.
            flags: FLAGS
                | if what == What::Enter {
                    COMINGS_AND_GOINGS
                } else {
                    0
                },
            clock: libc::CLOCK_MONOTONIC,
            ..Attributes::default()
        };
        const CLOEXEC: libc::c_ulong = 8;
        let (pid, group) = (0, -1);
        // SAFETY: the attributes are as large as they say, and the kernel only reads them.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                pid,
                cpu,
                group,
                CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel returned a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let mut id = 0u64;
        let event = Self { fd, id, what };
        // PERF_EVENT_IOC_ID
        event.control(opcode::read::<u64>(b'$', 7), &raw mut id as usize)?;
        Ok(Self { id, ..event })
    }

    /// PERF_EVENT_IOC_SET_FILTER
    fn filter(&self, expression: &str) -> io::Result<()> {
        let expression = CString::new(expression)?;
        self.control(
            opcode::write::<*const u8>(b'$', 6),
            expression.as_ptr() as usize,
        )
    }

    /// PERF_EVENT_IOC_SET_OUTPUT
    fn write_into(&self, other: &Self) -> io::Result<()> {
        self.control(opcode::none(b'$', 5), other.fd.as_raw_fd() as usize)
    }

    fn control(&self, request: u32, argument: usize) -> io::Result<()> {
        // SAFETY: callers pass a number, or a pointer to what the request reads or writes.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), request as libc::Ioctl, argument) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// `struct perf_event_attr` (linux/perf_event.h), version 5.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    unused: [u64; 4],
    stack: u32,
    clock: i32,
    registers: u64,
    watermark: u32,
    reserved: u32,
}

/// `0-3,8` (Documentation/admin-guide/cputopology.rst).
fn online_cpus() -> io::Result<Vec<i32>> {
    let text = fs::read_to_string("/sys/devices/system/cpu/online")?;
    let mut cpus = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<i32>().map_err(io::Error::other);
        cpus.extend(number(first)?..=number(last)?);
    }
    Ok(cpus)
}
