//! Programs that init brings along for images that have none of the kind. The agent starts them as processes of their own,
//! from init's own file, so that PID 1 waits for nothing that they wait for, and has their memory back when they end.

mod processes;

use alloc::string::String;
use core::ffi::CStr;

use kvmlet_contract::EXIT_INIT_FAILED;
use kvmlet_contract::channel::PROCESSES;

use crate::{console, sys};

/// Where the kernel shows a process its own program, even where no path leads to it any more.
pub const OWN_PROGRAM: &CStr = c"/proc/self/exe";

/// A program, which fails with the rest of a sentence that starts with "cannot".
pub struct Tool(fn() -> Result<(), String>);

impl Tool {
    /// The one with that name.
    pub fn named(name: &CStr) -> Option<Self> {
        match name.to_str().ok()? {
            PROCESSES => Some(Self(processes::list)),
            _ => None,
        }
    }

    /// Does what it is for, and ends this process.
    pub fn run(&self) -> ! {
        let code = match (self.0)() {
            Ok(()) => 0,
            Err(message) => {
                console::say(format_args!("cannot {message}"));
                EXIT_INIT_FAILED
            }
        };
        sys::exit(code)
    }
}
