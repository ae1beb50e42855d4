//! Disks of a VM.

use super::flag::Flag;
use super::rate_limit::Written;
use super::{DiskSource, Error, Given, Memory, RateLimit, Setting};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;

/// When a write that the guest was told of is safe from a loss of power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// Once the guest has flushed. The guest is told so, and may choose to write through.
    #[default]
    WriteBack,
    /// At once: every write is durable before it is acknowledged.
    WriteThrough,
}

/// How the host reads and writes the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskIo {
    /// `io_uring` where the host allows it, beside plain calls for what the page cache does at once; else `sync`.
    #[default]
    Auto,
    /// Many requests at a time through a ring; an error where the host forbids it.
    IoUring,
    /// One request after the other by plain system calls.
    Sync,
}

/// What a disk's content is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// The disk byte for byte, whatever its content looks like.
    Raw,
}

/// A serial number: 1 to 20 printable ASCII characters (virtio 1.2 §5.2.6, VIRTIO_BLK_T_GET_ID).
/// Linux shows it as `/sys/block/vda/serial`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Serial(String);

impl Serial {
    /// The most that the protocol has room for.
    pub const MAX_BYTES: usize = 20;

    /// The number as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Serial {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        let fits = (1..=Self::MAX_BYTES).contains(&text.len());
        match fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Self(text)),
            false => Err(Error::DiskSerial { text }),
        }
    }
}

/// How many queues a disk has, each served by a thread of its own: 1 to [`QueueCount::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct QueueCount(u16);

impl QueueCount {
    /// More queues than that have no use: one for each vCPU is plenty.
    pub const MAX: u16 = 32;
    /// One queue, the default.
    pub const ONE: Self = Self(1);

    /// The count as a number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for QueueCount {
    fn default() -> Self {
        Self::ONE
    }
}

impl TryFrom<u64> for QueueCount {
    type Error = Error;

    fn try_from(count: u64) -> Result<Self, Error> {
        match u16::try_from(count) {
            Ok(n @ 1..=Self::MAX) => Ok(Self(n)),
            _ => Err(Error::DiskQueues { count }),
        }
    }
}

/// A raw image file, a block device or ranges of files that the guest sees as a virtio disk.
///
/// As text it is a path and keys behind it, those of [`Setting::Disks`]:
///
/// ```
/// # use kvmlet_spec::Disk;
/// let root: Disk = "app.erofs,ro".parse()?;
/// let data: Disk = "path=data.img,direct,cache=writethrough,bandwidth=100M,iops=5000".parse()?;
/// assert_eq!(root, Disk::read_only("app.erofs"));
/// # Ok::<(), kvmlet_spec::Error>(())
/// ```
///
/// A comma in a value is written twice: `a,,b.img` is the file `a,b.img`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Where its content is.
    #[serde(rename = "path")]
    pub source: DiskSource,
    /// Whether the guest may only read. Several VMs can share such a disk.
    #[serde(default)]
    pub read_only: bool,
    /// Whether the host's page cache is bypassed (O_DIRECT).
    #[serde(default)]
    pub direct: bool,
    /// When a write is durable.
    #[serde(default)]
    pub cache: Cache,
    /// What the content is said to be. Without it, images in formats such as qcow2 are refused, because a
    /// guest that wrote to one as if it were raw would destroy it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<DiskFormat>,
    /// What the guest sees as serial number; without one, `kvmlet-0` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Serial>,
    /// How many queues the guest can use at a time.
    #[serde(default)]
    pub queues: QueueCount,
    /// How the host does the work.
    #[serde(default)]
    pub io: DiskIo,
    /// How much of it the guest may do per second.
    #[serde(default, skip_serializing_if = "RateLimit::is_none")]
    pub rate_limit: RateLimit,
    /// The file or device itself, where whoever starts the VM has it [open](Self::open): the path is what it is called then.
    #[serde(skip)]
    pub given: Option<Given>,
}

impl Disk {
    /// A disk that the guest cannot change.
    pub fn read_only(source: impl Into<DiskSource>) -> Self {
        Self {
            read_only: true,
            ..Self::read_write(source)
        }
    }

    /// A disk that the guest reads and writes, with write-back caching and no limits.
    pub fn read_write(source: impl Into<DiskSource>) -> Self {
        Self {
            source: source.into(),
            read_only: false,
            direct: false,
            cache: Cache::WriteBack,
            format: None,
            id: None,
            queues: QueueCount::ONE,
            io: DiskIo::Auto,
            rate_limit: RateLimit::NONE,
            given: None,
        }
    }

    /// The same disk, of a file or device that is open already, for programs that start a VM. It has to be open for writing
    /// if the guest may write. The path is not looked at then: it is what messages call it, and what a VM that goes on from
    /// a snapshot of this one opens.
    #[must_use]
    pub fn open(self, descriptor: impl Into<OwnedFd>) -> Self {
        Self {
            given: Some(descriptor.into().into()),
            ..self
        }
    }
}

/// The disk that keeps the changes of a root, as text: `FILE[,size=SIZE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// The file or device.
    pub path: PathBuf,
    /// How big a file is made, with an empty file system, where there is none of that name.
    pub size: Option<Memory>,
}

impl FromStr for Scratch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let flag = Flag::parse(Setting::Scratch, "a scratch disk", "path", text)?;
        let path = flag.text("path", "the name of a file or block device")?;
        Ok(Self {
            path: path.ok_or(Error::DiskPathMissing)?.into(),
            size: flag.bytes("size")?,
        })
    }
}

impl FromStr for Disk {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let flag = Flag::parse(Setting::Disks, "a disk", "path", text)?;
        let path = flag.text("path", "the name of a file or block device")?;
        let cache = flag.parsed("cache", "writeback or writethrough", |text| match text {
            "writeback" => Some(Cache::WriteBack),
            "writethrough" => Some(Cache::WriteThrough),
            _ => None,
        })?;
        let format = flag.parsed("format", "raw", |text| {
            (text == "raw").then_some(DiskFormat::Raw)
        })?;
        let io = flag.parsed("io", "auto, io_uring or sync", |text| match text {
            "auto" => Some(DiskIo::Auto),
            "io_uring" => Some(DiskIo::IoUring),
            "sync" => Some(DiskIo::Sync),
            _ => None,
        })?;
        let id = flag.text("id", "a serial number")?;
        let rate_limit = Written {
            bandwidth: flag.bytes("bandwidth")?,
            burst: flag.bytes("burst")?,
            once: flag.bytes("once")?,
            operations: flag.number("iops")?,
            operations_burst: flag.number("iops-burst")?,
            operations_once: flag.number("iops-once")?,
        };
        Ok(Self {
            source: path.ok_or(Error::DiskPathMissing)?.into(),
            read_only: flag.switch("ro")?,
            direct: flag.switch("direct")?,
            cache: cache.unwrap_or_default(),
            format,
            id: id.map(|text| text.to_owned().try_into()).transpose()?,
            queues: flag.number("queues")?.unwrap_or(1).try_into()?,
            io: io.unwrap_or_default(),
            rate_limit: rate_limit.limit("bandwidth", "iops")?,
            given: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rate;

    #[test]
    fn a_path_alone_is_a_writable_disk() {
        let parsed: Disk = "data.img".parse().unwrap();
        assert_eq!(parsed, Disk::read_write("data.img"));
        let parsed: Disk = serde_json::from_str(r#"{"path": "data.img"}"#).unwrap();
        assert_eq!(parsed, Disk::read_write("data.img"));
        assert_eq!("a,ro".parse::<Disk>().unwrap(), Disk::read_only("a"));
        assert_eq!("a,,b,ro".parse::<Disk>().unwrap(), Disk::read_only("a,b"));
        // A file that is called as a key is still one that can be named.
        assert_eq!("path=ro".parse::<Disk>().unwrap(), Disk::read_write("ro"));
    }

    #[test]
    fn one_that_is_open_is_another_disk_and_no_part_of_json() {
        let null = || std::fs::File::open("/dev/null").unwrap();
        let disk = Disk::read_only("d").open(null());
        assert_eq!(disk, disk.clone());
        assert_ne!(disk, Disk::read_only("d").open(null()));
        let text = serde_json::to_string(&disk).unwrap();
        let read: Disk = serde_json::from_str(&text).unwrap();
        assert_eq!(read, Disk::read_only("d"));
        // Of all clones one takes it.
        let (one, other) = (disk.clone().given.unwrap(), disk.given.unwrap());
        assert!(one.take().is_some() && other.take().is_none());
    }

    #[test]
    fn every_key_has_its_place_in_text_and_json() {
        let expected = Disk {
            source: "d".into(),
            read_only: true,
            direct: true,
            cache: Cache::WriteThrough,
            format: Some(DiskFormat::Raw),
            id: Some("db-1".to_owned().try_into().unwrap()),
            queues: 4.try_into().unwrap(),
            io: DiskIo::IoUring,
            rate_limit: RateLimit {
                bandwidth: Some(Rate::per_second(10 << 20).unwrap().burst(1 << 20).once(3)),
                operations: Some(Rate::per_second(1000).unwrap().burst(50).once(7)),
            },
            given: None,
        };
        let text = "ro,path=d,direct=on,cache=writethrough,format=raw,id=db-1,queues=4,io=io_uring,bandwidth=10M,\
                    burst=1M,once=3,iops=1000,iops-burst=50,iops-once=7";
        assert_eq!(text.parse::<Disk>().unwrap(), expected);
        let used = text.split(',').map(|item| item.split('=').next().unwrap());
        let mut keys = Setting::Disks.keys().map(Setting::name);
        assert!(keys.all(|key| used.clone().any(|k| k == key)));
        let json = r#"{"path": "d", "read_only": true, "direct": true, "cache": "writethrough", "format": "raw", "id": "db-1",
            "queues": 4, "io": "io_uring", "rate_limit": {"bandwidth": "10M", "burst": "1M", "once": 3,
            "operations": 1000, "operations_burst": 50, "operations_once": 7}}"#;
        assert_eq!(serde_json::from_str::<Disk>(json).unwrap(), expected);
    }

    #[test]
    fn a_scratch_disk_can_have_a_size() {
        let parsed = |text: &str| text.parse::<Scratch>().map_err(|error| error.to_string());
        let expected = |size: Option<&str>| Scratch {
            path: "s".into(),
            size: size.map(|size| size.parse().unwrap()),
        };
        assert_eq!(parsed("s"), Ok(expected(None)));
        assert_eq!(parsed("path=s,size=1G"), Ok(expected(Some("1G"))));
        for (text, part) in [
            ("size=1G", "`path=FILE`"),
            ("s,size", "`size` of a scratch disk needs a value: a size"),
            ("s,size=big", "512K or 10M"),
            ("s,ro", "a scratch disk has no key `ro`"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("", "`path` of a disk"),
            ("ro", "no file: add `path=FILE`"),
            ("a,cahce=writeback", "did you mean `cache`?"),
            ("a,b.img", "a comma in a path is written twice: `a,,b.img`"),
            ("a,iops-burst=5", "add `iops`"),
            ("a,once=5", "add `bandwidth`"),
            ("a,b", "a disk has no key `b`"),
            ("a,read_only", "did you mean `ro`?"),
            ("a,rate_limit.operations=5", "did you mean `iops`?"),
            ("a,operations_burst=5", "did you mean `iops-burst`?"),
            ("a,iops_burst=5", "did you mean `iops-burst`?"),
            ("a,readonly=on", "did you mean `ro`?"),
            ("a,ro,ro", "`ro` twice"),
            ("a,path=b", "`path` twice"),
            (
                "a,cache=none",
                "`cache` of a disk is `none`, not writeback or writethrough",
            ),
            ("a,format=qcow2", "`format` of a disk is `qcow2`, not raw"),
            ("a,io=aio", "auto, io_uring or sync"),
            ("a,ro=maybe", "on or off"),
            ("a,cache", "`cache` of a disk needs a value: writeback or"),
            ("a,queues=0", "1 to 32"),
            ("a,queues=33", "1 to 32"),
            ("a,queues=x", "a whole number"),
            ("a,bandwidth=fast", "10M"),
            ("a,bandwidth=0", "a rate of zero"),
            ("a,id=has space", "`has space`"),
            ("a,id=123456789012345678901", "20"),
        ] {
            let error = text.parse::<Disk>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for (json, expected) in [
            (
                r#"{"path": "a", "readonly": true}"#,
                "unknown field `readonly`",
            ),
            (r#"{"path": "a", "id": ""}"#, "serial number"),
            (r#"{"path": "a", "queues": 99}"#, "1 to 32"),
            (r#"{}"#, "path"),
        ] {
            let error = serde_json::from_str::<Disk>(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
