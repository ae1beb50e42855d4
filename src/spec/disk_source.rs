//! What a disk is made of.

use super::{Error, Extent, Extents, ExtentsError, service};
use serde::de::{SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// Where the content of a disk is. In JSON it is a path, or a list of ranges: `[{"path": FILE, "offset": 0, "bytes": 4096}]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum DiskSource {
    /// A raw image file or a block device.
    Path(PathBuf),
    /// Ranges of files, which are only read.
    Extents(Extents),
}

impl DiskSource {
    /// The file or device that is all of it, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Extents(_) => None,
        }
    }

    /// The files that it takes; one that several ranges are of is there several times.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let ranges = match self {
            Self::Path(_) => &[],
            Self::Extents(extents) => extents.as_slice(),
        };
        self.path()
            .into_iter()
            .chain(ranges.iter().map(Extent::path))
    }

    /// Checks what can be checked without a look at the host.
    pub(super) fn check(&self, what: &'static str, read_only: bool) -> Result<(), Error> {
        self.paths()
            .try_for_each(|path| service::check_path(what, path))?;
        match self {
            Self::Extents(_) if !read_only => Err(ExtentsError::Written.into()),
            _ => Ok(()),
        }
    }
}

impl<P: Into<PathBuf>> From<P> for DiskSource {
    fn from(path: P) -> Self {
        Self::Path(path.into())
    }
}

impl From<Extents> for DiskSource {
    fn from(extents: Extents) -> Self {
        Self::Extents(extents)
    }
}

/// A path; of ranges that of the first, and how many there are beside.
impl fmt::Display for DiskSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.paths().next().unwrap_or(Path::new(""));
        write!(f, "{}", first.display())?;
        match self.paths().count() {
            0 | 1 => Ok(()),
            count => write!(f, " (and {} more)", count - 1),
        }
    }
}

impl<'de> Deserialize<'de> for DiskSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Source;

        impl<'de> Visitor<'de> for Source {
            type Value = DiskSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a file, in quotes")
            }

            fn visit_str<E>(self, text: &str) -> Result<DiskSource, E> {
                Ok(DiskSource::Path(text.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, ranges: A) -> Result<DiskSource, A::Error> {
                Extents::deserialize(SeqAccessDeserializer::new(ranges)).map(DiskSource::Extents)
            }
        }
        deserializer.deserialize_any(Source)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Disk, DiskSource, Extent, Extents, VmConfig};

    fn ranges() -> Extents {
        let one = Extent::new("a", 0, 4096).unwrap();
        let two = Extent::new("b", 8192, 1 << 20).unwrap();
        vec![one, two].try_into().unwrap()
    }

    #[test]
    fn a_disk_and_a_root_may_be_made_of_ranges() {
        let json =
            r#"[{"path": "a", "bytes": 4096}, {"path": "b", "offset": 8192, "bytes": 1048576}]"#;
        let disk = format!(r#"{{"path": {json}, "read_only": true}}"#);
        let disk: Disk = serde_json::from_str(&disk).unwrap();
        assert_eq!(disk, Disk::read_only(ranges()));
        assert_eq!(disk.source.to_string(), "a (and 1 more)");
        let config = format!(
            r#"{{"kernel": "k", "root": {json}, "disks": [{{"path": {json}, "read_only": true}}]}}"#
        );
        let config = VmConfig::from_json(&config).unwrap();
        assert_eq!(config.disks, [disk.clone(), disk]);
        let again = VmConfig::from_json(&config.to_json().unwrap()).unwrap();
        assert_eq!(again, config);
        assert_eq!(DiskSource::from("a").path(), Some("a".as_ref()));
    }

    #[test]
    fn what_is_wrong_with_ranges_is_told_with_its_place() {
        for (disk, expected) in [
            (
                r#"{"path": 7}"#,
                "`disks[0].path`: `7` is not the path of a file",
            ),
            (r#"{"path": []}"#, "`disks[0].path`: 0 ranges make no disk"),
            (
                r#"{"path": [{"path": "a", "bytes": 12}]}"#,
                "`disks[0].path[0]`: 12 bytes of `a` from 0 on are not whole",
            ),
            (
                r#"{"path": [{"path": "a", "bytes": 4096, "size": 1}]}"#,
                "unknown key `size` in `disks[0].path[0]`",
            ),
            (
                r#"{"path": [{"path": "a", "bytes": 4096}]}"#,
                "can only be read: make it read-only",
            ),
            (
                r#"{"path": [{"path": "", "bytes": 4096}], "read_only": true}"#,
                "empty",
            ),
        ] {
            let json = format!(r#"{{"kernel": "k", "disks": [{disk}]}}"#);
            let error = VmConfig::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(expected), "{disk}: {error}");
        }
        let json = r#"{"kernel": "k", "disks": [{"path": "a"}, {"path": [{"path": "a", "bytes": 4096}], "read_only": true}]}"#;
        let error = VmConfig::from_json(json).unwrap_err().to_string();
        assert!(error.contains("the disk `a` is named twice"), "{error}");
    }
}
