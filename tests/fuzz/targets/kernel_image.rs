//! Any bytes as a kernel image: an error or a kernel within RAM, never a panic.
#![no_main]

use kvmlet_spec::MemorySize;
use kvmlet_vmm::arch::x86_64::boot;
use kvmlet_vmm::memory::GuestMemory;
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;
use std::sync::LazyLock;
use vm_memory::GuestAddress;

const RAM_BYTES: usize = 16 << 20;

static RAM: LazyLock<GuestMemory> =
    LazyLock::new(|| GuestMemory::from_ranges(&[(GuestAddress(0), RAM_BYTES)]).expect("16 MiB"));

fuzz_target!(|bytes: &[u8]| {
    let memory = 16.mib();
    let Ok(kernel) = boot::load_kernel(&RAM, memory, &mut Cursor::new(bytes)) else {
        return;
    };
    assert!(kernel.range.start < kernel.range.end && kernel.range.end <= RAM_BYTES as u64);
    let mut initrd = Cursor::new(bytes);
    let mut cmdline = boot::CommandLine::default();
    cmdline.user_text("cmdline", "console=ttyS0");
    // Whatever loads can be finished, or is refused with a reason.
    let _ = boot::finish(
        &RAM,
        memory,
        &kernel,
        Some(&mut initrd),
        &cmdline,
        GuestAddress(0xe_0000),
    );
});
