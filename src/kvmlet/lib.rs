//! kvmlet boots one service per microVM on Linux KVM.
//!
//! ```
//! use kvmlet::{ExitReason, MemorySize, Vm, VmConfig};
//!
//! # // A kernel that fits into an example: it powers off (writes 0x34 to port 0x600).
//! # let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
//! # elf.resize(16, 0);
//! # [2u16, 62, 1, 0].iter().for_each(|half| elf.extend(half.to_le_bytes()));
//! # [0x10_0000u64, 64, 0].iter().for_each(|word| elf.extend(word.to_le_bytes()));
//! # [0u16, 0, 64, 56, 1, 0, 0, 0].iter().for_each(|half| elf.extend(half.to_le_bytes()));
//! # [1u64 | 5 << 32, 120, 0x10_0000, 0x10_0000, 8, 8, 4096].iter().for_each(|word| elf.extend(word.to_le_bytes()));
//! # elf.extend([0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, 0xf4]);
//! # let directory = tempfile::tempdir()?;
//! # let vmlinux = directory.path().join("vmlinux");
//! # std::fs::write(&vmlinux, elf)?;
//! # if kvmlet::host::kvm::open().is_err() {
//! #     return Ok(()); // nothing to run it on
//! # }
//! let config = VmConfig::builder().kernel(vmlinux).memory(128.mib()).vcpus(2).build()?;
//! let vm = Vm::new(config)?.start()?; // vCPU threads run; this thread is free
//! let reason = vm.wait()?;
//! assert_eq!(reason, ExitReason::Shutdown { code: 0 });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

/// What the host gives; see `kvmlet-host`.
pub mod host {
    pub use kvmlet_host::*;
    pub use kvmlet_sys::{
        clock, directory, environment, event, facts, interrupt, kvm, process, ring, seccomp,
        signals, standard_error, wait, whole_file,
    };
}

pub use kvmlet_run as run;
pub use kvmlet_run::instance;
pub use kvmlet_spec as config;
pub use kvmlet_vmm::{arch, devices, disk, memory, system_calls, thread, vm};

pub use config::{Memory, MemorySize, Outcome, VmConfig};
pub use instance::{Instance, Running, Surroundings, init};
pub use vm::{Error, ExitReason, Vm, VmHandle};
