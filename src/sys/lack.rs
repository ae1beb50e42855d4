//! What helps against a lack of what everything takes.

use std::error::Error;
use std::io;

/// What helps when this process, or the host, may have no more of something that everything takes: whatever it was wanted
/// for, nothing else does.
pub fn way_out(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    match root.downcast_ref::<io::Error>()?.raw_os_error()? {
        libc::EMFILE => {
            Some("let kvmlet have more files open: `ulimit -n`, or LimitNOFILE= of a service")
        }
        libc::ENFILE => Some("let this host have more files open: fs.file-max (sysctl)"),
        _ => None,
    }
}
