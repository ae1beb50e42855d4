//! Directories by paths of an image's, whose links are looked up in the root and never outside of it.

use alloc::ffi::CString;
use alloc::vec;
use alloc::vec::Vec;
use core::ffi::CStr;

use linux_raw_sys::general::{O_NOFOLLOW, O_PATH, S_IFDIR, S_IFLNK, S_IFMT};

use crate::sys::tree::mkdir_in;
use crate::sys::{Errno, File};

/// As many links as the kernel follows (MAXSYMLINKS).
const MAX_LINKS: usize = 40;
/// The kernel's PATH_MAX.
const LONGEST_LINK: usize = 4096;

/// Opens the directory at an absolute path as a place, after making those that are missing on the way. What a link says that
/// leads nowhere is made, too.
pub fn open_made(path: &CStr) -> Result<File, Errno> {
    let root = File::open(c"/", O_PATH)?;
    // Each directory is in the one before it, so that `..` needs no path.
    let mut way = vec![root];
    let mut rest = components(path.to_bytes());
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name.to_bytes() == b".." {
            way.truncate(way.len().saturating_sub(1).max(1));
            continue;
        }
        let Some(directory) = way.last() else {
            return Err(Errno::ENOENT);
        };
        let found = open_or_make(directory, &name)?;
        match found.status_of(c"")?.mode & S_IFMT {
            S_IFDIR => way.push(found),
            S_IFLNK => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::ELOOP);
                }
                let mut target = [0; LONGEST_LINK];
                let target = found.link_target(c"", &mut target)?;
                if target.starts_with(b"/") {
                    way.truncate(1);
                }
                rest.extend(components(target));
            }
            _ => return Err(Errno::ENOTDIR),
        }
    }
    way.pop().ok_or(Errno::ENOENT)
}

/// The components of a path that say something, the last one first.
fn components(path: &[u8]) -> Vec<CString> {
    let parts = path.split(|byte| *byte == b'/');
    let said = parts.filter(|part| !part.is_empty() && *part != b".");
    said.rev()
        .filter_map(|part| CString::new(part).ok())
        .collect()
}

fn open_or_make(directory: &File, name: &CStr) -> Result<File, Errno> {
    let open = || directory.open_in(name, O_PATH | O_NOFOLLOW, 0);
    match open() {
        Err(Errno::ENOENT) => {
            match mkdir_in(directory.number(), name, 0o755) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error),
            }
            open()
        }
        other => other,
    }
}
