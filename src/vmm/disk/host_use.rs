//! What this host itself does with a disk: loop devices, mounts, swap, and devices that are made of it.

use super::block_node::{BlockNode, LOOP_PREFIX};
use std::fmt;
use std::fs::Metadata;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A use that the host makes of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostUse {
    /// The device by which the host uses it, such as `loop0` or `vdb1`; None for a file itself.
    device: Option<String>,
    purpose: Purpose,
    /// Whether the host may write to the disk by this.
    writes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    Mount(PathBuf),
    Swap,
    /// A device-mapper table, a RAID, a cache; by the name of its device.
    PartOf(String),
    /// A loop device that nothing else is known of.
    Attached,
}

impl HostUse {
    /// The use of a file that stands in the way of a VM, if there is one: any at all of a VM that writes, and
    /// whatever writes of a VM that reads.
    pub(super) fn of_file(file: &Metadata, read_only: bool) -> Option<Self> {
        let swap = swaps()
            .any(|path| is_same_file(&path, file))
            .then_some(Self {
                device: None,
                purpose: Purpose::Swap,
                writes: true,
            });
        let mut uses = swap
            .into_iter()
            .chain(BlockNode::loops_over(file).flat_map(|device| of_loop(&device)));
        uses.find(|found| found.writes || !read_only)
    }

    /// The use of a block device, by what makes it up as well, that stands in the way of a VM.
    pub(super) fn of_device(device: &Metadata, read_only: bool) -> Option<Self> {
        let node = BlockNode::numbered(device.rdev())?;
        let mut uses = of_node(&node);
        uses.extend(node.whole_disk().iter().flat_map(of_node_alone));
        // Another loop device over the same file is the same disk.
        if let Some(backing) = node.backing_file() {
            let others = BlockNode::loops_over(&backing).filter(|other| *other != node);
            uses.extend(others.flat_map(|other| of_loop(&other)));
        }
        uses.into_iter().find(|found| found.writes || !read_only)
    }

    /// How to end it.
    pub(super) fn way_out(&self, read_only: bool) -> String {
        let end = match (&self.purpose, &self.device) {
            (Purpose::Mount(at), _) => format!("unmount it (`umount {}`)", at.display()),
            (Purpose::Swap, Some(device)) => format!("end that (`swapoff /dev/{device}`)"),
            (Purpose::Swap, None) => "end that (`swapoff FILE`)".into(),
            (Purpose::PartOf(_), _) => {
                "take that apart, as by `dmsetup remove`, or name it as the disk instead".into()
            }
            (Purpose::Attached, device) => format!(
                "detach it (`losetup -d /dev/{}`)",
                device.as_deref().unwrap_or(LOOP_PREFIX)
            ),
        };
        match (read_only, &self.purpose) {
            (true, Purpose::Mount(_)) => format!("{end}, or mount it there with `-o ro`"),
            (true, Purpose::Attached) => format!("{end}, or attach it with `losetup -r`"),
            _ => end,
        }
    }
}

impl fmt::Display for HostUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.purpose, &self.device) {
            (Purpose::Attached, Some(device)) => {
                return write!(f, "it is attached to `/dev/{device}`");
            }
            (_, Some(device)) => write!(f, "`/dev/{device}` ")?,
            (_, None) => write!(f, "it ")?,
        }
        match &self.purpose {
            Purpose::Mount(at) => write!(f, "is mounted at `{}`", at.display()),
            Purpose::Swap => write!(f, "is swap space"),
            Purpose::PartOf(whole) => write!(f, "is part of `{whole}`"),
            Purpose::Attached => write!(f, "is attached"),
        }
    }
}

/// The uses of a loop device over a file. One that nothing is known of may be written to by anybody at any time,
/// or be mounted in a mount namespace that this process does not see.
fn of_loop(device: &BlockNode) -> Vec<HostUse> {
    let mut uses = of_node(device);
    if uses.is_empty() {
        uses.push(HostUse {
            device: Some(device.name().into()),
            purpose: Purpose::Attached,
            writes: true,
        });
    }
    let is_writable = !device.is_read_only();
    uses.iter_mut()
        .for_each(|found| found.writes &= is_writable);
    uses
}

/// The uses of a device and its partitions.
fn of_node(device: &BlockNode) -> Vec<HostUse> {
    let partitions = device.partitions();
    let nodes = [device].into_iter().chain(&partitions);
    nodes.flat_map(of_node_alone).collect()
}

fn of_node_alone(device: &BlockNode) -> Vec<HostUse> {
    let found = |purpose, writes| HostUse {
        device: Some(device.name().into()),
        purpose,
        writes,
    };
    // This thread's: another one may be on its way into a jail meanwhile.
    let mounts = std::fs::read("/proc/thread-self/mountinfo").unwrap_or_default();
    let mounts = mounts_of(&mounts, device.number(), |source| {
        BlockNode::at(source).is_some_and(|at| at == *device)
    });
    let mounts = mounts.map(|(at, read_only)| found(Purpose::Mount(at), !read_only));
    let swap = swaps().any(|path| BlockNode::at(&path).is_some_and(|at| at == *device));
    let swap = swap.then(|| found(Purpose::Swap, true));
    let holders = device.holders();
    let holders = holders
        .iter()
        .map(|holder| found(Purpose::PartOf(holder.shown()), !holder.is_read_only()));
    mounts.chain(swap).chain(holders).collect()
}

fn is_same_file(path: &Path, file: &Metadata) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()))
}

/// The files and devices that are swapped to (proc_swaps(5)).
fn swaps() -> impl Iterator<Item = PathBuf> {
    let text = std::fs::read("/proc/swaps").unwrap_or_default();
    swaps_of(&text).into_iter()
}

fn swaps_of(text: &[u8]) -> Vec<PathBuf> {
    let lines = text.split(|byte| *byte == b'\n').skip(1);
    lines
        .filter_map(|line| line.split(|byte| byte.is_ascii_whitespace()).next())
        .filter(|name| !name.is_empty())
        .map(unescaped)
        .collect()
}

/// Where a device is mounted, and whether only to be read (proc_pid_mountinfo(5)). The file system's own state
/// counts, not the mount's: a bind mount can be read-only where the file system is not. Some file systems have a
/// device number of their own (btrfs); they tell their device as the source.
fn mounts_of(
    text: &[u8],
    number: &str,
    is_device: impl Fn(&Path) -> bool,
) -> impl Iterator<Item = (PathBuf, bool)> {
    let mount = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let separator = fields.iter().position(|field| *field == b"-")?;
        let [_, _, at_number, _, at, ..] = fields[..separator] else {
            return None;
        };
        let [_, source, options, ..] = fields[separator + 1..] else {
            return None;
        };
        let is_this = at_number == number.as_bytes()
            || at_number.starts_with(b"0:")
                && source.starts_with(b"/dev/")
                && is_device(&unescaped(source));
        let read_only = options
            .split(|byte| *byte == b',')
            .any(|option| option == b"ro");
        is_this.then(|| (unescaped(at), read_only))
    };
    let mounts: Vec<_> = text
        .split(|byte| *byte == b'\n')
        .filter_map(mount)
        .collect();
    mounts.into_iter()
}

/// A path as the kernel writes it in tables: blanks and backslashes are `\` and three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn escapes_are_undone() {
        for (field, expected) in [
            (&b"/a\\040b"[..], &b"/a b"[..]),
            (b"\\134\\011", b"\\\t"),
            (b"/end\\04", b"/end\\04"),
            (b"/no\\999", b"/no\\999"),
            (b"", b""),
        ] {
            assert_eq!(unescaped(field).as_os_str().as_bytes(), expected);
        }
    }

    #[test]
    fn swap_is_listed_below_a_heading() {
        let text = b"Filename\tType\tSize\tUsed\tPriority\n/swap\\040file   file\t1\t0\t-2\n/dev/dm-1 partition 1 0 -3\n";
        assert_eq!(
            swaps_of(text),
            [Path::new("/swap file"), Path::new("/dev/dm-1")]
        );
        assert!(swaps_of(b"").is_empty() && swaps_of(b"Filename\n").is_empty());
    }

    #[test]
    fn mounts_are_found_by_number_or_source() {
        let text = b"1 0 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            2 1 7:0 / /mnt\\040a rw,relatime shared:1 master:2 - ext4 /dev/loop0 ro,x=1\n\
            3 1 7:0 / /bind ro,relatime - ext4 /dev/loop0 rw,ro_not\n\
            4 1 0:40 / /b rw - btrfs /dev/loop1 rw\n\
            broken line\n5 1 7:0\n6 1 7:0 / /x rw -\n";
        let none = |_: &Path| false;
        let found: Vec<_> = mounts_of(text, "7:0", none).collect();
        assert_eq!(found, [("/mnt a".into(), true), ("/bind".into(), false)]);
        let found: Vec<_> = mounts_of(text, "7:1", |path| path == "/dev/loop1").collect();
        assert_eq!(found, [("/b".into(), false)]);
    }

    proptest! {
        #[test]
        fn any_table_has_an_answer(text in prop::collection::vec(any::<u8>(), 0..300)) {
            unescaped(&text);
            swaps_of(&text);
            mounts_of(&text, "7:0", |_| true).count();
        }
    }
}
