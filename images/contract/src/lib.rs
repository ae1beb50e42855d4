//! What a kvmlet host and its guests agree on: what the first process of a guest is asked to do, and how it is asked, and
//! the [registers](machine) by which a guest tells of its end.
//!
//! The host describes a guest's user space with a [`GuestSpec`] and puts it on the kernel command
//! line with [`GuestSpec::to_cmdline`]; `kvmlet-init`, which is PID 1 in the guest, reads it back
//! with [`GuestSpec::from_cmdline`]. An image can carry the service's part of it in
//! [`SERVICE_FILE`], read with [`ServiceSpec::from_json`]; what the command line says comes first.
//!
//! ```
//! use kvmlet_contract::{GuestSpec, ServiceSpec};
//!
//! let guest = GuestSpec {
//!     service: ServiceSpec { command: vec!["echo".into(), "a b".into()], ..Default::default() },
//!     ..Default::default()
//! };
//! assert_eq!(guest.to_cmdline(), "kvmlet.arg=echo kvmlet.arg=a%20b");
//! assert_eq!(GuestSpec::from_cmdline("console=ttyS0 kvmlet.arg=echo kvmlet.arg=a%20b")?, guest);
//! # Ok::<(), kvmlet_contract::Error>(())
//! ```
//!
//! # Types that grow
//!
//! Errors are `non_exhaustive`; structs, and the enums of what is sent, are not, though `kvmlet-spec` and `kvmlet-control` pass some
//! of them on to other programs. Host and guest's init write each of them out whole, and a field or a message that is added is a
//! change of what both have agreed on: the compiler is to show each place that does not know of it yet. Which
//! messages there are, both sides have agreed on before any is sent ([`channel::agree`]), so that no program meets one that its own
//! kvmlet does not know. What other programs make themselves ([`channel::ProcessSpec`], [`channel::MountSpec`],
//! [`ServiceSpec`]) has a default, so that a literal which ends with `..Default::default()` compiles when there is a field more;
//! `non_exhaustive` would forbid that very literal.
//!
//! The crate has no dependency and needs only `alloc`, because the guest's init runs without the
//! standard library (its `main.rs` says why).

#![no_std]
#![warn(clippy::alloc_instead_of_core, clippy::std_instead_of_alloc)]

extern crate alloc;

mod accounts;
pub mod archive;
pub mod channel;
mod cmdline;
mod error;
mod exit;
mod json;
pub mod machine;
mod percent;
mod service_file;
mod spec;

pub use accounts::{Account, AccountError, Identity, Lookup, MAX_GROUPS, User};
pub use error::Error;
pub use exit::{EXIT_INIT_FAILED, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, exec_error_code, exit_code};
pub use spec::{
    AgentSpec, ConsoleSize, FileSystem, GuestSpec, NetworkSpec, Overlay, RootSpec, STOP_TIMEOUT_S,
    ServiceSpec,
};

/// Where an image says which service it holds.
pub const SERVICE_FILE: &str = "/etc/kvmlet/service.json";
