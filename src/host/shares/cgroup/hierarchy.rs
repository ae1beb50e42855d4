//! Where the cgroups of this process are: version 1, where each controller has a tree of its own, version 2,
//! where all share one, or both beside each other.

use super::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// What a cgroup can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// CPU time: quotas and weights.
    Cpu,
    /// Which CPUs.
    Cpuset,
    /// Memory.
    Memory,
}

impl Controller {
    /// All that kvmlet uses.
    pub const ALL: [Controller; 3] = [Self::Cpu, Self::Cpuset, Self::Memory];

    /// The kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
        }
    }

    /// What it is needed for.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Cpu => "CPU quotas and weights",
            Self::Cpuset => "CPU sets",
            Self::Memory => "memory limits",
        }
    }
}

/// Which tree has a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// The controller's own.
    V1(Tree),
    /// That of all.
    V2,
}

/// A tree of cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    /// Where its root is, or that of this process's cgroup namespace.
    pub mount: PathBuf,
    /// This process's cgroup.
    pub own: PathBuf,
}

/// Where this process stands in the host's cgroups.
#[derive(Clone, Debug, Default)]
pub struct Hierarchies {
    pub(super) unified: Option<Tree>,
    pub(super) v1: Vec<(Controller, Tree)>,
}

impl Hierarchies {
    /// Looks at the mounts and the cgroups of this process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn find() -> Result<Self, Error> {
        let read = |path| {
            fs::read_to_string(path).map_err(|source| Error::Read {
                path: PathBuf::from(path),
                source,
            })
        };
        Ok(Self::parse(
            &read("/proc/self/mountinfo")?,
            &read("/proc/self/cgroup")?,
            Path::new("/"),
        ))
    }

    /// `mountinfo` and `cgroup` are the files of /proc/self (proc_pid_mountinfo(5), cgroups(7)); mount points
    /// are below `root`.
    pub(super) fn parse(mountinfo: &str, cgroup: &str, root: &Path) -> Self {
        let mut found = Self::default();
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            let named = |line: &&str| match mount.options {
                None => line.starts_with("0::"),
                Some(options) => line.split(':').nth(1).is_some_and(|names| {
                    names
                        .split(',')
                        .any(|name| !name.is_empty() && has(options, name))
                }),
            };
            let Some(line) = cgroup.lines().find(named) else {
                continue;
            };
            // Inside a container the mount may begin at the container's cgroup instead of the root.
            let Some(path) = line.splitn(3, ':').nth(2) else {
                continue;
            };
            let Ok(below) = Path::new(path).strip_prefix(&mount.root) else {
                continue;
            };
            let point = root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
            // Joining nothing would leave a slash at the end.
            let own: PathBuf = point.components().chain(below.components()).collect();
            let tree = Tree { mount: point, own };
            // Of two mounts of one tree the first will do.
            match mount.options {
                None => {
                    found.unified.get_or_insert(tree);
                }
                Some(options) => {
                    for controller in Controller::ALL {
                        let known = found.v1.iter().any(|(known, _)| *known == controller);
                        if has(options, controller.name()) && !known {
                            found.v1.push((controller, tree.clone()));
                        }
                    }
                }
            }
        }
        found
    }

    /// The tree that has a controller. Version 2 comes first: a controller that is in use there is in no
    /// other tree.
    pub(super) fn home(&self, controller: Controller) -> Option<Home> {
        if let Some(Tree { mount, own }) = &self.unified
            && [mount, own]
                .iter()
                .any(|path| listed(path, "cgroup.controllers", controller))
        {
            return Some(Home::V2);
        }
        let (_, tree) = self.v1.iter().find(|(known, _)| *known == controller)?;
        Some(Home::V1(tree.clone()))
    }

    /// The version of the tree that has `cpu`; 0 if none has.
    pub fn version(&self) -> u8 {
        match self.home(Controller::Cpu) {
            Some(Home::V2) => 2,
            Some(Home::V1(_)) => 1,
            None => 0,
        }
    }

    /// The mount of the unified tree where it stands beside trees of version 1 (hybrid mode).
    pub fn hybrid(&self) -> Option<&Path> {
        let unified = self.unified.as_ref()?;
        (self.version() == 1).then_some(&unified.mount)
    }
}

/// Is a controller in a cgroup's list?
pub(super) fn listed(cgroup: &Path, file: &str, controller: Controller) -> bool {
    let text = fs::read_to_string(cgroup.join(file)).unwrap_or_default();
    text.split_whitespace()
        .any(|name| name == controller.name())
}

fn has(options: &str, name: &str) -> bool {
    options.split(',').any(|option| option == name)
}

/// A line of mountinfo that is about cgroups.
struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    /// What version 1 says of its controllers; nothing for version 2.
    options: Option<&'a str>,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut kind = kind.split(' ');
        let options = match kind.next()? {
            "cgroup2" => None,
            "cgroup" => Some(kind.nth(1)?),
            _ => return None,
        };
        Some(Self {
            root: unescape(mount.next()?),
            point: unescape(mount.next()?),
            options,
        })
    }
}

/// Blanks, tabs, line ends and backslashes are three octal digits behind a backslash there.
fn unescape(text: &str) -> PathBuf {
    let plain = text
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\");
    PathBuf::from(plain)
}
