//! Resource limits (setrlimit(2)) of a process in the jail.

use super::descriptors::Inventory;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Descriptors that may come: timers of rate limits, mostly, two for each queue in use.
const MORE_DESCRIPTORS: u64 = 64;
/// Threads of the kernel count, too: io_uring has up to four for each CPU that work for a thread which has a
/// ring, and KVM may have one.
const KERNEL_THREADS: u64 = 64;

/// What a thread may take for its stack, which is mapped when it starts: Rust's 2 MiB, with room to spare.
const STACK_BYTES: u64 = 4 << 20;
/// What a program maps before it does anything.
const PROGRAM_BYTES: u64 = 64 << 20;

/// What a process in a jail may need.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Threads that it is going to have.
    pub threads: usize,
    /// Descriptors that it is going to be handed, beside those of its devices.
    pub descriptors: usize,
    /// Memory: guest RAM, and what a VMM takes beside.
    pub memory_bytes: u64,
}

/// Limits this process to little more than what it has and needs. Nothing is known of what it has open where there is
/// no /proc. `counts_alone` tells whether its threads are counted without those of other processes.
pub(super) fn set(open: Option<&Inventory>, needs: Needs, counts_alone: bool) -> io::Result<()> {
    limit(Resource::Core, 0)?;
    limit(Resource::Msgqueue, 0)?;
    let threads = needs.threads as u64 + 1;
    if counts_alone {
        limit(Resource::Nproc, threads * KERNEL_THREADS)?;
    }
    let memory = needs
        .memory_bytes
        .saturating_add(threads * STACK_BYTES + PROGRAM_BYTES);
    limit(Resource::Data, memory)?;
    limit(Resource::As, memory.saturating_add(PROGRAM_BYTES))?;
    let more = MORE_DESCRIPTORS + needs.descriptors as u64;
    if let Some(open) = open {
        limit(Resource::Nofile, open.highest as u64 + 1 + more)?;
        // Disks keep their size. (Whoever makes one larger while a VM runs raises the limit by prlimit(2).) Of outputs
        // that are files the process has only pipes.
        limit(Resource::Fsize, open.largest_file_bytes)?;
    }
    Ok(())
}

/// Never above what it is.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let hard = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = Some(most.min(hard));
    setrlimit(
        resource,
        Rlimit {
            current: value,
            maximum: value,
        },
    )?;
    Ok(())
}
