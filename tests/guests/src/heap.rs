//! Memory beyond the image: page tables for RAM above 4 GiB, and pages that programs take
//! and never give back.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::boot_info::BootInfo;
use crate::mmio::{read64, write64};

/// Where programs are linked (`guest.ld`).
pub const IMAGE_START: u64 = 0x20_0000;
/// Size of a page from [`take_pages`].
pub const PAGE_BYTES: u64 = 4096;
const GIB: u64 = 1 << 30;
/// What the static page tables map.
const STATIC_BYTES: u64 = 4 * GIB;
/// The end of the memory that a guest can use: what one entry of the first table maps.
const LIMIT_BYTES: u64 = 512 * GIB;
/// Present, writable, user, accessed, dirty.
const TABLE: u64 = 0x67;
/// [`TABLE`] and "this is a 2 MiB page".
const LARGE_PAGE: u64 = 0xe7;

static NEXT: AtomicU64 = AtomicU64::new(0);
static END: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static __image_end: u8;
    static guest_page_tables: u8;
}

/// Gives the heap the RAM from the image's end to the end of its memory map entry.
pub(crate) fn take_rest_of_image_ram(info: &BootInfo) {
    let image_end = &raw const __image_end as u64;
    let Some(entry) = info
        .ram()
        .find(|entry| entry.start < image_end && image_end <= entry.end())
    else {
        panic!("the memory map has no RAM at {image_end:#x}, where the image ends");
    };
    NEXT.store(image_end, Ordering::Relaxed);
    END.store(entry.end().min(STATIC_BYTES), Ordering::Relaxed);
}

/// Takes `count` zeroed pages that lie one after the other; their physical address. Panics
/// when RAM has run out.
pub fn take_pages(count: u64) -> u64 {
    let bytes = count * PAGE_BYTES;
    let start = NEXT.fetch_add(bytes, Ordering::Relaxed);
    assert!(
        start + bytes <= END.load(Ordering::Relaxed),
        "out of memory for {count} pages"
    );
    // SAFETY: RAM that the memory map announces, beyond the image, handed out once.
    unsafe { core::ptr::write_bytes(start as *mut u8, 0, bytes as usize) };
    start
}

/// First address that [`take_pages`] has not given out yet.
pub fn next_free() -> u64 {
    NEXT.load(Ordering::Relaxed)
}

/// Maps the RAM above 4 GiB. The VMM's page tables need not reach that far, and neither do
/// the static ones.
pub(crate) fn map_above_4_gib(info: &BootInfo) {
    for entry in info.ram().filter(|entry| entry.end() > STATIC_BYTES) {
        assert!(entry.end() <= LIMIT_BYTES, "RAM beyond 512 GiB: {entry:x?}");
        map(entry.start.max(STATIC_BYTES), entry.end());
    }
}

/// Maps all from `start` to `end` where it is, as far as it is not mapped, by whole GiB.
pub fn map(start: u64, end: u64) {
    assert!(end <= 1 << 47, "{end:#x} is no address of a program's");
    for gib in start / GIB..end.div_ceil(GIB) {
        // 512 of them for each entry of the first table.
        let pdpt = table(&raw const guest_page_tables as u64 + gib / 512 * 8);
        let slot = pdpt + gib % 512 * 8;
        if read64(slot) != 0 {
            continue;
        }
        let directory = take_pages(1);
        for page in 0..512 {
            let large = (gib * GIB + (page << 21)) | LARGE_PAGE;
            // SAFETY: a page that the heap has just given out.
            unsafe { write64(directory + page * 8, large) };
        }
        point(slot, directory);
    }
}

/// The table that an entry points at; a new one, if there is none.
fn table(slot: u64) -> u64 {
    if read64(slot) == 0 {
        point(slot, take_pages(1));
    }
    read64(slot) & !(PAGE_BYTES - 1)
}

fn point(slot: u64, table: u64) {
    // SAFETY: an empty entry of a page table that the CPU uses. It was not present, so no translation lookaside
    // buffer remembers it.
    unsafe { write64(slot, table | TABLE) };
}
