//! What has to be changed in a root that is read-only.

use alloc::ffi::CString;
use alloc::string::String;
use alloc::vec::Vec;

use linux_raw_sys::general::{
    MNT_DETACH, MS_MOVE, MS_NODEV, MS_NOSUID, MS_RDONLY, MS_REMOUNT, O_PATH,
};

use crate::read_text;
use crate::sys::{self, Errno, File};

/// Does something to the root that takes a writable one, also if it is not: then in a layer over it, in memory, that is
/// read-only afterwards, too. Before the service runs, which sees one root.
pub fn change<T>(work: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    match work() {
        Err(Errno::EROFS) => {}
        other => return other,
    }
    let layered = File::open(c"/", O_PATH).is_ok_and(|root| root.is_in_overlay());
    let remount = |flags| sys::mount(c"none", c"/", c"", MS_REMOUNT | flags, c"");
    // The layers of an overlay that is read-only can be written to. Anything else is not, whoever has wanted that.
    let writable = if layered {
        remount(0)
    } else {
        layer_over_root()
    };
    writable.map_err(|_| Errno::EROFS)?;
    let done = work();
    remount(MS_RDONLY)?;
    done
}

/// Mounts an overlay over the root, takes along what is mounted in it, and makes it the root.
fn layer_over_root() -> Result<(), Errno> {
    let mounts = read_text(c"/proc/self/mountinfo")?;
    // Over the one that is there, and gone from sight with the old root.
    sys::mount(c"tmpfs", c"/tmp", c"tmpfs", 0, c"mode=0755")?;
    for directory in [c"/tmp/upper", c"/tmp/work", c"/tmp/root"] {
        sys::mkdir(directory, 0o755)?;
    }
    let options = c"lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work";
    let layered = sys::mount(c"overlay", c"/tmp/root", c"overlay", 0, options);
    let moved = layered.and_then(|()| {
        for place in mounts
            .lines()
            .filter_map(|line| place_in_root(line, &mounts))
        {
            let to = [b"/tmp/root", &place[..]].concat();
            let to = CString::new(to).unwrap_or_default();
            sys::mount(
                &CString::new(place).unwrap_or_default(),
                &to,
                c"",
                MS_MOVE,
                c"",
            )?;
        }
        Ok(())
    });
    if let Err(error) = moved {
        let _ = sys::unmount(c"/tmp", MNT_DETACH);
        return Err(error);
    }
    sys::chdir(c"/tmp/root")?;
    sys::mount(c".", c"/", c"", MS_MOVE, c"")?;
    sys::chroot(c".")?;
    sys::chdir(c"/")?;
    let flags = MS_NOSUID | MS_NODEV;
    sys::mount(c"tmpfs", c"/tmp", c"tmpfs", flags, c"mode=1777")
}

/// Where a line of the mount table has something mounted in the root itself, but for its temporary directory
/// (proc_pid_mountinfo(5)).
fn place_in_root(line: &str, mounts: &str) -> Option<Vec<u8>> {
    let field = |line: &str, index: usize| line.split(' ').nth(index).map(String::from);
    let root = mounts
        .lines()
        .rfind(|line| field(line, 4).as_deref() == Some("/"))?;
    let place = field(line, 4)?;
    let is_in_root = field(line, 1) == field(root, 0);
    (is_in_root && place != "/" && place != "/tmp").then(|| unescaped(&place))
}

/// A path without the kernel's escapes: a backslash and three octal digits.
fn unescaped(path: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, others @ ..] = rest {
        let digits = others.get(..3).and_then(|it| core::str::from_utf8(it).ok());
        let code = digits.and_then(|it| u8::from_str_radix(it, 8).ok());
        let (byte, length) = match code.filter(|_| *first == b'\\') {
            Some(code) => (code, 4),
            None => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes
}
