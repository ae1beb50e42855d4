//! System calls that a thread may make, as a seccomp filter (seccomp(2)). Which those are is for others to say.

mod alarm;
mod elsewhere;
mod program;

pub use alarm::{EXIT_CODE, end_at_panic, install as install_alarm, remember_thread};
pub use elsewhere::{Elsewhere, elsewhere};
pub use program::Program;

use std::io;

/// A system call that is meant, as far as `check` goes. Two rules for one call are alternatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number.
    pub call: libc::c_long,
    /// What must hold of an argument.
    pub check: Check,
}

/// A condition on the lower 32 bits of an argument, which has the number that comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Any argument will do.
    None,
    /// It has this value.
    Equal(u8, u32),
    /// It has none of these bits.
    Without(u8, u32),
    /// It has one of these bits.
    With(u8, u32),
    /// It is the number of this process.
    OwnProcess(u8),
}

impl Rule {
    /// A call with any arguments.
    pub const fn any(call: libc::c_long) -> Self {
        let check = Check::None;
        Self { call, check }
    }

    /// A call one of whose arguments has a value.
    pub const fn equal(call: libc::c_long, argument: u8, value: u32) -> Self {
        let check = Check::Equal(argument, value);
        Self { call, check }
    }

    /// A call one of whose arguments has none of some bits.
    pub const fn without(call: libc::c_long, argument: u8, bits: u32) -> Self {
        let check = Check::Without(argument, bits);
        Self { call, check }
    }

    /// A call one of whose arguments has one of some bits.
    pub const fn with(call: libc::c_long, argument: u8, bits: u32) -> Self {
        let check = Check::With(argument, bits);
        Self { call, check }
    }
}

/// Does the kernel know filters that trap?
///
/// # Errors
/// What it says if not.
pub fn check_support() -> io::Result<()> {
    let action = libc::SECCOMP_RET_TRAP;
    // SAFETY: reads a number.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
