use core::fmt;

use linux_raw_sys::errno;

/// An error number of the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(u16);

/// Names the errors that init can meet: as constants, and in messages.
macro_rules! errors {
    ($($name:ident $text:literal)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self(errno::$name as u16);)*
        }

        impl fmt::Display for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Self::$name => f.write_str($text),)*
                    Self(number) => write!(f, "error {number}"),
                }
            }
        }
    };
}

errors! {
    EPERM "not permitted"
    ENOENT "no such file or directory"
    ESRCH "no such process"
    EINTR "interrupted"
    EIO "input/output error"
    ENXIO "no such device or address"
    E2BIG "arguments and environment are too long"
    ENOEXEC "not an executable file (does a script lack its #! line?)"
    EAGAIN "a resource is used up for now"
    ENOMEM "out of memory"
    EACCES "permission denied"
    EBUSY "in use"
    EEXIST "it exists already"
    ENODEV "no such device, or not known to this guest kernel"
    ENOTDIR "not a directory"
    EINVAL "invalid argument"
    ENOTTY "not a terminal"
    ETXTBSY "the file is being written"
    EFBIG "too large"
    ENOSPC "no space left"
    EROFS "read-only file system"
    ENAMETOOLONG "name too long"
    ENOSYS "not built into this guest kernel"
    ELOOP "too many symbolic links"
    EAFNOSUPPORT "address family not built into this guest kernel"
    EADDRNOTAVAIL "address not available"
    ENETDOWN "network is down"
    ENETUNREACH "network is unreachable"
    EOPNOTSUPP "not supported"
    EINPROGRESS "it is on its way"
    ECONNREFUSED "nobody listens there"
    ECONNRESET "the connection was reset"
    EADDRINUSE "the address is in use"
    EMFILE "too many open files"
    ENODATA "it has none"
    ENOTEMPTY "the directory is not empty"
    EISDIR "a directory is there"
}

impl Errno {
    /// From the kernel's number.
    pub fn from_number(number: i32) -> Self {
        Self(number as u16)
    }

    /// The kernel's number.
    pub fn number(self) -> i32 {
        self.0.into()
    }
}
