//! What the first process of a kvmlet guest is asked to do, and how it is asked.
//!
//! The host describes a guest's user space with a [`GuestSpec`] and puts it on the kernel command
//! line with [`GuestSpec::to_cmdline`]; `kvmlet-init`, which is PID 1 in the guest, reads it back
//! with [`GuestSpec::from_cmdline`]. An image can carry the service's part of it in
//! [`SERVICE_FILE`], read with [`ServiceSpec::from_json`]; what the command line says comes first.
//!
//! ```
//! use kvmlet_init::{GuestSpec, ServiceSpec};
//!
//! let guest = GuestSpec {
//!     service: ServiceSpec { command: vec!["echo".into(), "a b".into()], ..Default::default() },
//!     ..Default::default()
//! };
//! assert_eq!(guest.to_cmdline(), "kvmlet.arg=echo kvmlet.arg=a%20b");
//! assert_eq!(GuestSpec::from_cmdline("console=ttyS0 kvmlet.arg=echo kvmlet.arg=a%20b")?, guest);
//! # Ok::<(), kvmlet_init::Error>(())
//! ```
//!
//! The crate has no dependency and needs only `alloc`, because the guest's init runs without the
//! standard library (`main.rs` says why).

#![no_std]
#![warn(clippy::alloc_instead_of_core, clippy::std_instead_of_alloc)]

extern crate alloc;

mod cmdline;
mod error;
mod exit;
mod json;
mod percent;
mod service_file;
mod spec;

pub use error::Error;
pub use exit::{EXIT_INIT_FAILED, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, exec_error_code, exit_code};
pub use spec::{
    ConsoleSize, FileSystem, GuestSpec, NetworkSpec, Overlay, RootSpec, STOP_TIMEOUT_S,
    ServiceSpec, User,
};

/// Where an image says which service it holds.
pub const SERVICE_FILE: &str = "/etc/kvmlet/service.json";

/// I/O port of the VMM's sleep control register (ACPI 6.5 §4.8.3.7); see [`SLEEP_POWER_OFF`].
pub const SLEEP_CONTROL_PORT: u16 = 0x600;

/// I/O port that takes the service's exit code, one byte, before the guest powers off.
pub const EXIT_CODE_PORT: u16 = 0x602;

/// Written to [`SLEEP_CONTROL_PORT`] to power off: SLP_TYP 5 in bits 2 to 4 and SLP_EN, bit 5.
pub const SLEEP_POWER_OFF: u8 = 5 << 2 | 1 << 5;
