//! Programs that init brings along for images that have none of the kind. The agent starts them as processes of their own,
//! from init's own file, so that PID 1 waits for nothing that they wait for, and has their memory back when they end.

mod pack;
mod processes;
mod unpack;

use alloc::string::String;
use core::ffi::CStr;

use kvmlet_contract::EXIT_INIT_FAILED;
use kvmlet_contract::channel::{CHANGED_NAMES, CHANGES, PACK, PROCESSES, UNPACK};

use crate::console;
use crate::sys::{self, Errno, File};

/// Where the kernel shows a process its own program, even where no path leads to it any more.
pub const OWN_PROGRAM: &CStr = c"/proc/self/exe";

/// A program, which fails with the rest of a sentence that starts with "cannot".
pub enum Tool {
    /// Of all processes.
    List(fn() -> Result<(), String>),
    /// Of a path.
    Copy(fn(&CStr) -> Result<(), String>),
}

impl Tool {
    /// The one with that name.
    pub fn named(name: &CStr) -> Option<Self> {
        match name.to_str().ok()? {
            PROCESSES => Some(Self::List(processes::list)),
            PACK => Some(Self::Copy(pack::pack)),
            UNPACK => Some(Self::Copy(unpack::unpack)),
            CHANGES => Some(Self::Copy(pack::changes)),
            CHANGED_NAMES => Some(Self::Copy(pack::changed_names)),
            _ => None,
        }
    }

    /// Does what it is for, and ends this process.
    pub fn run(&self, argument: Option<&CStr>) -> ! {
        let result = match self {
            Self::List(list) => list(),
            // A working directory is the root, as that of any process of the agent's.
            Self::Copy(copy) => copy(argument.unwrap_or_default()),
        };
        let code = match result {
            Ok(()) => 0,
            Err(message) => {
                console::say(format_args!("cannot {message}"));
                EXIT_INIT_FAILED
            }
        };
        sys::exit(code)
    }
}

/// The last component of a path, of which slashes at its end are no part.
fn last(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(0, |at| at + 1);
    let start = path[..end]
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |at| at + 1);
    (&path[..start], &path[start..end])
}

/// Opens the directory that a path's last component is in.
fn parent(path: &CStr) -> Result<File, Errno> {
    let mut buffer = [0; 4096];
    let (before, name) = last(path.to_bytes());
    // Neither says what it is called.
    if name.is_empty() || name == b"." || name == b".." {
        return Err(Errno::EINVAL);
    }
    let before = if before.is_empty() { b"." } else { before };
    File::open(
        c_str(before, &mut buffer)?,
        sys::O_RDONLY | sys::O_DIRECTORY,
    )
}

/// As the kernel takes it.
fn c_str<'b>(bytes: &[u8], buffer: &'b mut [u8]) -> Result<&'b CStr, Errno> {
    let space = buffer.get_mut(..=bytes.len()).ok_or(Errno::ENAMETOOLONG)?;
    space[..bytes.len()].copy_from_slice(bytes);
    space[bytes.len()] = 0;
    CStr::from_bytes_with_nul(space).map_err(|_| Errno::EINVAL)
}
