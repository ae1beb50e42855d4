//! What is in directories.

use core::ffi::CStr;

use linux_raw_sys::general::__NR_getdents64;

use super::{Errno, File, syscall};

/// Where the name starts in a struct linux_dirent64, and before it the length of all of it (getdents64(2)).
const NAME: usize = 19;
const LENGTH: usize = 16;

impl File {
    /// Hands out the name of each entry of an open directory, `.` and `..` as well.
    pub fn each_entry(&self, see: &mut dyn FnMut(&CStr)) -> Result<(), Errno> {
        let mut buffer = [0u64; 512];
        loop {
            let size = size_of_val(&buffer);
            // SAFETY: the kernel writes no more than `size` bytes.
            let count = unsafe { call!(__NR_getdents64, self.0, buffer.as_mut_ptr(), size) }?;
            if count == 0 {
                return Ok(());
            }
            // SAFETY: the array's bytes, each of which has a value.
            let bytes = unsafe { core::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), size) };
            let mut rest = &bytes[..count.min(size)];
            while let Some(&[low, high]) = rest.get(LENGTH..LENGTH + 2) {
                let length = usize::from(u16::from_ne_bytes([low, high]));
                let entry = rest.get(..length).and_then(|entry| entry.get(NAME..));
                let Some(entry) = entry else {
                    return Err(Errno::EIO);
                };
                if let Ok(name) = CStr::from_bytes_until_nul(entry) {
                    see(name);
                }
                rest = &rest[length..];
            }
        }
    }
}
