//! Whom a process runs as: what the image's user database says of names and numbers.

use alloc::format;
use alloc::string::String;
use core::ffi::CStr;

use kvmlet_contract::{Account, Identity, Lookup, User};
use linux_raw_sys::general::O_NONBLOCK;

use crate::sys::{self, Errno, File};

/// A longer line is no entry: it is skipped.
const LONGEST_LINE: usize = 16 << 10;
/// A longer file is not read any further.
const LONGEST_FILE: usize = 4 << 20;

/// Finds out whom `user` means, who is also to be in the groups `extra`.
pub fn identify(user: &User, extra: &[Account]) -> Result<Identity, String> {
    let mut lookup = Lookup::new(user, extra);
    each_line(c"/etc/passwd", |line| lookup.passwd_line(line))?;
    each_line(c"/etc/group", |line| lookup.group_line(line))?;
    lookup
        .finish()
        .map_err(|e| format!("become user {user}: {e}"))
}

/// Hands out the lines of a file, or none if there is no such file. What else may be there, such as a pipe without a
/// writer, is not waited for.
fn each_line(path: &CStr, mut see: impl FnMut(&[u8])) -> Result<(), String> {
    let failed = |error: Errno| format!("read {}: {error}", path.to_string_lossy());
    let file = match File::open(path, sys::O_RDONLY | sys::O_NOCTTY | O_NONBLOCK) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        other => other.map_err(failed)?,
    };
    if !file.is_regular() {
        return Ok(());
    }
    let mut lines = Lines::new();
    let mut chunk = [0; 4096];
    for _ in 0..LONGEST_FILE / chunk.len() {
        let length = file.read(&mut chunk).map_err(failed)?;
        if length == 0 {
            break;
        }
        lines.take(&chunk[..length], &mut see);
    }
    see(&lines.line);
    Ok(())
}

/// Lines in the making.
struct Lines {
    line: alloc::vec::Vec<u8>,
    too_long: bool,
}

impl Lines {
    fn new() -> Self {
        Self {
            line: alloc::vec::Vec::new(),
            too_long: false,
        }
    }

    fn take(&mut self, bytes: &[u8], see: &mut impl FnMut(&[u8])) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = match part {
                [text @ .., b'\n'] => (text, true),
                text => (text, false),
            };
            self.too_long |= self.line.len() + text.len() > LONGEST_LINE;
            if !self.too_long {
                self.line.extend_from_slice(text);
            }
            if complete {
                if !self.too_long {
                    see(&self.line);
                }
                self.line.clear();
                self.too_long = false;
            }
        }
    }
}
