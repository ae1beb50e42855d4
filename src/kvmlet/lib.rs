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
//! # if std::fs::File::open("/dev/kvm").is_err() {
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

/// What a user asks for, and what is told of a VM: a [`VmConfig`] comes from its builder or from JSON.
pub use kvmlet_spec as config;

/// A VM in processes of its own, with everything that the command has: walls, a share of the host, networks.
pub mod instance {
    pub use kvmlet_run::Error;
    pub use kvmlet_run::instance::{Instance, Running, Streams, Surroundings, Verbosity, init};
    /// An allocator for the processes of VMs, which may map no memory in their jail. A program that is built for musl has to
    /// choose it to have jailed VMs; one with glibc need not.
    ///
    /// ```
    /// #[global_allocator]
    /// static ALLOCATOR: kvmlet::instance::Allocator = kvmlet::instance::Allocator;
    /// ```
    pub use kvmlet_sys::heap::Heap as Allocator;
}

/// A VM in this process, without walls, and what can be done with one that runs.
pub mod vm {
    pub use kvmlet_sys::event::Event;
    pub use kvmlet_vmm::devices::serial::SerialInput;
    pub use kvmlet_vmm::devices::virtio::balloon::{BalloonHandle, Error as BalloonError};
    pub use kvmlet_vmm::devices::virtio::block::{BlockHandle, Error as BlockError};
    pub use kvmlet_vmm::devices::virtio::net::{Direction, NetHandle};
    pub use kvmlet_vmm::devices::virtio::vsock::VsockHandle;
    pub use kvmlet_vmm::vm::{
        BootTrace, Cause, Error, ExitReason, Failure, Phase, State, Vm, VmHandle,
    };

    use kvmlet_host::state::runtime::RuntimeDirectory;
    use kvmlet_spec::{Net, VmConfig};
    use std::io::Write;

    /// A VM with the networks and the sockets of its configuration, which this process then holds and serves. Its first
    /// serial port writes to `output`, see [`Vm::with_console`].
    ///
    /// What it has of this host is noted in the runtime directory of this process's user. Where there can be none,
    /// interfaces are possible on taps that exist.
    ///
    /// # Errors
    /// What the host cannot give, and what is wrong with the VM.
    pub fn build(
        config: VmConfig,
        output: impl Write + Send + 'static,
    ) -> Result<Vm, super::instance::Error> {
        let makes_taps = config.nets.iter().any(Net::is_made);
        let runtime = match RuntimeDirectory::of_user() {
            Err(error) if makes_taps => return Err(error.into()),
            found => found.ok(),
        };
        kvmlet_run::build(config, output, runtime.as_ref())
    }
}

#[cfg(feature = "control")]
pub mod control;

pub use config::{Memory, MemorySize, Outcome, VmConfig};
pub use instance::{Instance, Running, Surroundings, init};
pub use vm::{Error, ExitReason, Vm, VmHandle};
