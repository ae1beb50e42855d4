//! Ports by which a guest kernel has what XSAVE and XRSTOR do, where KVM interprets it.
//!
//! There its processes run on the processor, with all of its registers, and KVM has those of the process that was there
//! last. But the kernel, which is to give each process its own, cannot save them: KVM's emulator knows neither instruction.
//! A kernel of kvmlet's own (`kernels/patches`) writes the address of an area to a port instead, and here KVM is asked
//! for the registers or told them (KVM_GET_XSAVE, KVM_SET_XSAVE).
//!
//! An address is counted in 64 bytes, as areas are aligned. One that is outside of guest memory does nothing, and nor does
//! an area that KVM refuses. What a guest can do by that it does to its own memory and its own registers.

use super::begins::Begins;
use crate::arch::x86_64::address_map as map;
use crate::arch::x86_64::cpuid::{self, CpuidPlan};
use crate::config::Memory;
use crate::memory::GuestRam;
use kvm_bindings::kvm_xsave;
use kvm_ioctls::VcpuFd;
use kvmlet_sys::kvm::Execution;
use std::sync::LazyLock;
use vm_memory::{Bytes, GuestAddress};

/// How much of an address is not written.
const SHIFT: u32 = 6;

/// Places in an area (Intel SDM vol. 1 §13.4.1, §13.4.2).
const X87_CONTROL: usize = 0;
const X87_REST: std::ops::Range<usize> = 2..24;
const X87_REGISTERS: std::ops::Range<usize> = 32..160;
const XMM: std::ops::Range<usize> = 160..416;
const HEADER: usize = 512;
const HEADER_BYTES: usize = 64;
/// Bits of the header's first number.
const X87: u64 = 1 << 0;
const SSE: u64 = 1 << 1;
/// The x87 control word after FNINIT.
const X87_INITIAL: u16 = 0x37f;

/// What a write to a port asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Save(GuestAddress),
    Restore(GuestAddress),
}

/// The ports of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FpuPorts {
    /// The components that are saved and restored, as XCR0 has them.
    components: u64,
    /// The size of an area.
    bytes: usize,
    /// Its guest may have found them elsewhere, so that they are there on each host.
    brought: bool,
}

/// Looked at when a guest asks for the ports: each CPUID is a trap where the host is a VM itself, and few guests do.
static INTERPRETED: LazyLock<bool> =
    LazyLock::new(|| Execution::of_processor() == Execution::Interpreted);

impl FpuPorts {
    /// Those of a VM whose vCPUs begin with that. There are none where guest kernels run on the processor, too, but for a
    /// guest that comes from elsewhere: it may have found them there.
    pub fn of(begins: &Begins, cpuid: &CpuidPlan, memory: Memory) -> Option<Self> {
        let (leaves, brought) = match begins {
            Begins::Booted(_) => (cpuid.for_vcpu(0), false),
            Begins::Resumed(saved) => (saved.state.vcpus.first()?.cpuid.clone(), true),
        };
        let reached = map::ram_end(memory) <= 1 << (u32::BITS + SHIFT);
        let (components, bytes) = cpuid::xsave_area(&leaves).filter(|_| reached)?;
        let components = components.into();
        Some(Self {
            components,
            bytes,
            brought,
        })
    }

    fn are_there(&self) -> bool {
        self.brought || *INTERPRETED
    }

    /// The size of an area, to whom reads the first port.
    pub fn read(&self, port: u16, data: &mut [u8]) -> bool {
        match <&mut [u8; 4]>::try_from(data) {
            Ok(data) if port == map::FPU_SAVE && self.are_there() => {
                *data = (self.bytes as u32).to_le_bytes();
                true
            }
            _ => false,
        }
    }

    /// What a write to a port asks for, if it is one of these.
    pub fn order(&self, port: u16, data: &[u8]) -> Option<Order> {
        let address = u64::from(u32::from_le_bytes(data.try_into().ok()?)) << SHIFT;
        let order = match port {
            map::FPU_SAVE => Order::Save(GuestAddress(address)),
            map::FPU_RESTORE => Order::Restore(GuestAddress(address)),
            _ => return None,
        };
        self.are_there().then_some(order)
    }

    /// Does it, by the vCPU's own thread, which has come out of KVM_RUN by that write.
    // Areas of pages each, which vCPUs that do nothing of the kind are not to have on their stacks.
    #[inline(never)]
    pub fn carry_out(&self, order: Order, fd: &VcpuFd, ram: &GuestRam) {
        let mut area = [0; size_of::<[u32; 1024]>()];
        match order {
            Order::Save(address) => {
                let Ok(told) = fd.get_xsave() else { return };
                for (bytes, word) in area.chunks_exact_mut(4).zip(told.region) {
                    bytes.copy_from_slice(&word.to_le_bytes());
                }
                self.leave_out_others(&mut area);
                // Outside of its memory: the guest's own fault.
                let _ = ram.write_slice(&area[..self.bytes], address);
            }
            Order::Restore(address) => {
                if ram.read_slice(&mut area[..self.bytes], address).is_err() {
                    return;
                }
                self.leave_out_others(&mut area);
                make_legacy_whole(&mut area);
                let mut xsave = kvm_xsave::default();
                for (word, bytes) in xsave.region.iter_mut().zip(area.chunks_exact(4)) {
                    *word = bytes.try_into().map_or(0, u32::from_le_bytes);
                }
                // What KVM refuses, XRSTOR would have, too.
                // SAFETY: as where a saved vCPU's is set: KVM reads this structure at the most.
                let _ = unsafe { fd.set_xsave(&xsave) };
            }
        }
    }

    /// Has the header name no other components, and nothing else: the format is the standard one.
    fn leave_out_others(&self, area: &mut [u8]) {
        let named = named(area) & self.components;
        area[HEADER..HEADER + HEADER_BYTES].fill(0);
        name(area, named);
    }
}

fn named(area: &[u8]) -> u64 {
    let header = area[HEADER..].first_chunk();
    header.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn name(area: &mut [u8], components: u64) {
    area[HEADER..HEADER + 8].copy_from_slice(&components.to_le_bytes());
}

/// Writes the initial state of x87 and SSE where the header does not name them, and names them. XRSTOR takes the register
/// of modes, MXCSR, from each area in this format, whatever is named (Intel SDM vol. 1 §13.8.1); KVM, only with SSE.
fn make_legacy_whole(area: &mut [u8]) {
    let named = named(area);
    if named & X87 == 0 {
        area[X87_CONTROL..X87_REST.start].copy_from_slice(&X87_INITIAL.to_le_bytes());
        area[X87_REST].fill(0);
        area[X87_REGISTERS].fill(0);
    }
    if named & SSE == 0 {
        area[XMM].fill(0);
    }
    name(area, named | X87 | SSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: FpuPorts = FpuPorts {
        components: 0b111,
        bytes: 832,
        brought: true,
    };

    /// What kvmlet's own guest kernels are patched with.
    const PATCH: &str = include_str!(
        "../../../kernels/patches/0016-x86-fpu-save-and-restore-registers-by-ports.patch"
    );

    #[test]
    fn patched_kernels_agree() {
        let defined = |name: &str| {
            let prefix = format!("+#define {name}\t");
            let line = PATCH.lines().find_map(|line| line.strip_prefix(&prefix));
            line.expect(name).trim()
        };
        assert_eq!(defined("FPU_SAVE_PORT"), format!("{:#x}", map::FPU_SAVE));
        assert_eq!(
            defined("FPU_RESTORE_PORT"),
            format!("{:#x}", map::FPU_RESTORE)
        );
        assert_eq!(defined("FPU_AREA_SHIFT"), SHIFT.to_string());
    }

    #[test]
    fn ports_take_whole_numbers_only() {
        let address = 0x0403_0201_u64 << 6;
        let written = [1, 2, 3, 4];
        let save = Some(Order::Save(GuestAddress(address)));
        let restore = Some(Order::Restore(GuestAddress(address)));
        assert_eq!(PORTS.order(map::FPU_SAVE, &written), save);
        assert_eq!(PORTS.order(map::FPU_RESTORE, &written), restore);
        for port in [map::FPU_SAVE + 1, map::FPU_RESTORE + 4, 0] {
            assert_eq!(PORTS.order(port, &written), None, "{port:#x}");
        }
        for data in [&written[..1], &written[..2], &[0; 8], &[]] {
            assert_eq!(PORTS.order(map::FPU_SAVE, data), None);
            let mut data = data.to_vec();
            assert!(!PORTS.read(map::FPU_SAVE, &mut data));
        }
        let mut data = written;
        assert!(!PORTS.read(map::FPU_RESTORE, &mut data));
        assert!(PORTS.read(map::FPU_SAVE, &mut data));
        assert_eq!(data, 832_u32.to_le_bytes());
    }

    #[test]
    fn a_header_names_what_is_kept_and_nothing_else() {
        let mut area = [0xff; 4096];
        PORTS.leave_out_others(&mut area);
        assert_eq!(named(&area), 0b111);
        assert!(
            area[HEADER + 8..HEADER + HEADER_BYTES]
                .iter()
                .all(|byte| *byte == 0)
        );
        assert_eq!(
            (area[HEADER - 1], area[HEADER + HEADER_BYTES]),
            (0xff, 0xff)
        );
    }

    #[test]
    fn what_is_not_named_is_as_after_a_reset() {
        let mut area = [0xff; 4096];
        name(&mut area, 0b100);
        make_legacy_whole(&mut area);
        assert_eq!(named(&area), 0b111);
        assert_eq!(area[..2], X87_INITIAL.to_le_bytes());
        assert!(
            area[2..24]
                .iter()
                .chain(&area[32..416])
                .all(|byte| *byte == 0)
        );
        // MXCSR and its mask are the area's.
        assert!(area[24..32].iter().all(|byte| *byte == 0xff));
        let mut whole = [0xff; 4096];
        name(&mut whole, 0b11);
        let before = whole;
        make_legacy_whole(&mut whole);
        assert_eq!(whole, before);
    }
}
