//! What a VM's processes keep of the host's memory once it runs.

use crate::harness::{Test, patience::eventually};
use crate::jail::spinning;
use std::fs::{File, read_to_string};
use std::ops::Range;
use std::os::unix::fs::FileExt;

pub const TESTS: &[Test] = &[("what_a_start_took_is_given_back", given_back)];

const PAGE_BYTES: usize = 4096;
/// The stretch of addresses that a heap has.
const HEAP_BYTES: usize = 32 << 20;
/// What a VM needs of it, and no more: the definition of the command line alone took 60 KiB.
const MOST_OF_HEAP: usize = 20;

fn given_back() {
    let (child, vm) = spinning(&[]);
    for process in [child.id() as i32, vm] {
        // Half a page is the call's own, and what signals take comes again.
        eventually("stack is given back", || {
            unused_stack(process).is_some_and(|pages| pages < 2)
        });
        eventually("heap is given back", || heap(process) <= MOST_OF_HEAP);
    }
}

/// How many pages of its first thread's stack are there that no call uses. None while it runs.
fn unused_stack(process: i32) -> Option<usize> {
    let call = read_to_string(format!("/proc/{process}/syscall")).unwrap();
    // The last but one is where the stack ends (proc_pid_syscall(5)).
    let used_from = call.split_whitespace().rev().nth(1)?.strip_prefix("0x")?;
    let used_from = usize::from_str_radix(used_from, 16).ok()?;
    let mappings = mappings(process);
    let (stack, _) = mappings.iter().find(|(_, name)| name == "[stack]")?;
    Some(resident(
        process,
        stack.start..used_from & !(PAGE_BYTES - 1),
    ))
}

fn heap(process: i32) -> usize {
    let mappings = mappings(process);
    let mut heaps = mappings.iter().filter(|(place, name)| {
        let bytes = place.end - place.start;
        name.is_empty() && bytes == HEAP_BYTES
    });
    let (heap, _) = heaps.next().expect("a heap");
    assert!(heaps.next().is_none());
    resident(process, heap.clone())
}

/// Where they are, and what they are of.
fn mappings(process: i32) -> Vec<(Range<usize>, String)> {
    let maps = read_to_string(format!("/proc/{process}/maps")).unwrap();
    let number = |text: &str| usize::from_str_radix(text, 16).unwrap();
    let place = |line: &str| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        number(start)..number(end)
    };
    let name = |line: &str| line.split_whitespace().nth(5).unwrap_or_default().into();
    maps.lines().map(|line| (place(line), name(line))).collect()
}

/// How many of these pages are there.
fn resident(process: i32, places: Range<usize>) -> usize {
    const ENTRY_BYTES: usize = size_of::<u64>();
    let pagemap = File::open(format!("/proc/{process}/pagemap")).unwrap();
    let pages = places.len() / PAGE_BYTES;
    let mut entries = vec![0; pages * ENTRY_BYTES];
    let first = places.start / PAGE_BYTES * ENTRY_BYTES;
    pagemap.read_exact_at(&mut entries, first as u64).unwrap();
    let entries = entries.chunks_exact(ENTRY_BYTES);
    // The upper bit says so (Documentation/admin-guide/mm/pagemap.rst).
    entries
        .filter(|entry| entry[ENTRY_BYTES - 1] & 0x80 != 0)
        .count()
}
