//! The cgroup below which that of a VM is made.

use super::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// Where the kernel's interface is on every distribution; a path that begins there is meant from the root of the tree.
const MOUNT: &str = "/sys/fs/cgroup";
/// What the names of the kernel's own files in every cgroup begin with (cgroup-v2.rst, "Core Interface Files").
const RESERVED: &str = "cgroup.";

/// The path of a cgroup from the root of the tree, such as `/tenants/a`, or `/` for the root itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct CgroupParent(PathBuf);

impl CgroupParent {
    /// The path: absolute, without `.` and `..`.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for CgroupParent {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why| Error::CgroupParent {
            text: text.into(),
            why,
        };
        let path = Path::new(text);
        if !path.is_absolute() {
            return Err(wrong("it must begin with `/`, the root of the cgroup tree"));
        }
        if text.contains(['\0', '\n']) {
            return Err(wrong("it has a character that no cgroup's name has"));
        }
        let path = path.strip_prefix(MOUNT).unwrap_or(path);
        let mut clean = PathBuf::from("/");
        for component in path.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) => {
                    let name = name.to_string_lossy();
                    if name.starts_with(RESERVED) {
                        return Err(wrong("names of the kernel's own files are no cgroups"));
                    }
                    clean.push(&*name);
                }
                _ => return Err(wrong("it may not have `..` in it")),
            }
        }
        Ok(Self(clean))
    }
}

impl TryFrom<String> for CgroupParent {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl fmt::Display for CgroupParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_from_the_root_of_the_tree() {
        let path = |text: &str| {
            text.parse::<CgroupParent>()
                .map(|parent| parent.to_string())
        };
        for (text, expected) in [
            ("/", "/"),
            ("/tenants/a", "/tenants/a"),
            ("/tenants//a/", "/tenants/a"),
            ("/sys/fs/cgroup/tenants.slice", "/tenants.slice"),
            ("/sys/fs/cgroup", "/"),
        ] {
            assert_eq!(path(text).unwrap(), expected, "{text}");
        }
        for (text, why) in [
            ("", "begin with `/`"),
            ("tenants", "begin with `/`"),
            ("/a/../..", "`..`"),
            ("/a/cgroup.procs", "kernel's own"),
            ("/a\nb", "character"),
        ] {
            let error = path(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
