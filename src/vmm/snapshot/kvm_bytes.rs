//! KVM's structures as bytes. Their layout is the kernel's ABI for x86-64, which does not change.

use super::bytes::{Garbled, Record, split};
use kvm_bindings::{
    kvm_clock_data, kvm_debugregs, kvm_lapic_state, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};

/// A structure of the kernel's.
///
/// # Safety
/// It has the kernel's layout (`repr(C)`), numbers only, and no bytes between or behind them that are not part of one.
unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty: $bytes:literal),* $(,)?) => {$(
        const _: () = assert!(size_of::<$type>() == $bytes);

        // SAFETY: made by bindgen of linux/kvm.h, where padding is spelt out as fields; the sizes are those of the ABI.
        unsafe impl Plain for $type {}

        impl Record for $type {
            fn put(&self, to: &mut Vec<u8>) {
                put(self, to);
            }

            fn take(from: &mut &[u8]) -> Result<Self, Garbled> {
                take(from)
            }
        }
    )*};
}

plain! {
    kvm_regs: 144,
    kvm_sregs: 312,
    kvm_xcrs: 392,
    kvm_debugregs: 128,
    kvm_lapic_state: 1024,
    kvm_vcpu_events: 64,
    kvm_clock_data: 48,
}

fn put<T: Plain>(value: &T, to: &mut Vec<u8>) {
    let start = std::ptr::from_ref(value).cast::<u8>();
    // SAFETY: a `Plain` value is nothing but that many bytes, all of which are set.
    to.extend_from_slice(unsafe { std::slice::from_raw_parts(start, size_of::<T>()) });
}

fn take<T: Plain>(from: &mut &[u8]) -> Result<T, Garbled> {
    let bytes = split(from, size_of::<T>())?;
    // SAFETY: there are as many bytes as it has, wherever they lie, and any of them make one.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
