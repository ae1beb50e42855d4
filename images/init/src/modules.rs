//! Drivers of a distribution's kernel, which has them as modules.

use alloc::ffi::CString;
use alloc::format;
use core::ffi::CStr;

use crate::console;
use crate::sys::{self, Errno, File};

/// Names of files beside it, each behind those that it needs.
const LIST: &CStr = c"/modules/list";

/// Loads what the initramfs has, which takes no room in it from then on. What the kernel does not take is told: who needs it
/// will miss it.
pub fn load() {
    let list = match crate::read_text(LIST) {
        Ok(list) => list,
        Err(Errno::ENOENT) => return,
        Err(error) => return console::say(format_args!("cannot read /modules/list: {error}")),
    };
    for name in list.lines() {
        let path = CString::new(format!("/modules/{name}")).unwrap_or_default();
        let loaded = File::open(&path, sys::O_RDONLY).and_then(|file| file.load_module());
        match loaded {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => console::say(format_args!("cannot load the driver {name}: {error}")),
        }
        let _ = sys::unlink(&path);
    }
}
