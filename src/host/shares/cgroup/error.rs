//! What can go wrong with cgroups, and what a person can do about it.

use super::Controller;
use crate::config::{Advice, Setting, advice};
use std::io;
use std::path::PathBuf;

/// Why a quota cannot be held.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host has no such controller.
    #[error("this host has no cgroup controller `{}`, which {} need", .controller.name(), .controller.purpose())]
    Missing {
        /// The controller.
        controller: Controller,
    },
    /// The controller is not there for this process.
    #[error(
        "the cgroup controller `{}`, which {} need, is not delegated to `{}`",
        .controller.name(), .controller.purpose(), .directory.display()
    )]
    Withheld {
        /// The controller.
        controller: Controller,
        /// The cgroup of this process.
        directory: PathBuf,
    },
    /// Cgroups can be made by others only.
    #[error("no permission to make cgroups in `{}`, which {} need", .directory.display(), .controller.purpose())]
    Denied {
        /// The controller.
        controller: Controller,
        /// The cgroup of this process.
        directory: PathBuf,
        /// The version of its tree; only version 2 can be delegated.
        version: u8,
    },
    /// Cgroups are mounted so that nobody can make any: that is how container engines do it.
    #[error("no cgroups can be made here: `{}` is mounted read-only", .directory.display())]
    ReadOnly {
        /// The cgroup that they would be made in.
        directory: PathBuf,
    },
    /// This process may not leave its cgroup for one where it may make others: above both is one of somebody else.
    #[error(
        "this user's processes may not be moved from the cgroup `{}` to `{}`, where limits can be set",
        .from.display(), .to.display()
    )]
    OutOfReach {
        /// The cgroup of this process.
        from: PathBuf,
        /// Where others can be made.
        to: PathBuf,
    },
    /// Limits cannot be set below a cgroup of version 2 that has processes (cgroup-v2.rst, "No Internal
    /// Process Constraint").
    #[error("processes are in the cgroup `{}`, so none with limits can be made in it", .directory.display())]
    Occupied {
        /// The cgroup that has them.
        directory: PathBuf,
    },
    /// What the kernel says about this process cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A cgroup cannot be made.
    #[error("cannot make the cgroup `{}`", .path.display())]
    Make {
        /// Its directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A limit cannot be set.
    #[error("cannot write `{text}` to `{}`", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        text: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A process or thread cannot be put into the cgroup.
    #[error("cannot join the cgroup `{}`", .path.display())]
    Join {
        /// Its directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It cannot be taken away.
    #[error("cannot remove the cgroup `{}`", .path.display())]
    Remove {
        /// Its directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

const OWN_SCOPE: &str =
    "start it in a scope of its own: `systemd-run --user --scope -p Delegate=yes kvmlet ...`";

impl Error {
    /// The controller that is not available, if it is about one.
    pub(super) fn controller(&self) -> Option<Controller> {
        match self {
            Self::Missing { controller }
            | Self::Withheld { controller, .. }
            | Self::Denied { controller, .. } => Some(*controller),
            _ => None,
        }
    }

    /// Was it caused by another kvmlet, which ended and cleared away what this one was about to use?
    pub(super) fn is_passing(&self) -> bool {
        let (Self::Make { source, .. } | Self::Write { source, .. } | Self::Join { source, .. }) =
            self
        else {
            return false;
        };
        matches!(source.kind(), io::ErrorKind::NotFound)
            || source.raw_os_error() == Some(libc::ENODEV)
    }

    /// What a person can do about it, if something is known to help.
    pub fn help(&self) -> Option<Advice> {
        match self {
            Self::Occupied { .. } => Some(advice!(
                "name one without processes, or one that does not exist yet, or let kvmlet choose: leave out {}",
                Setting::CgroupParent
            )),
            _ => self.text().map(Into::into),
        }
    }

    /// What names no setting.
    fn text(&self) -> Option<String> {
        let kind = |source: &io::Error| source.kind();
        Some(match self {
            Self::Missing { controller } => format!(
                "boot the host with cgroup version 2, or mount the controller: `mount -t cgroup -o {0} {0} \
                 /sys/fs/cgroup/{0}`",
                controller.name()
            ),
            Self::Withheld { controller, .. } => format!(
                "let root pass it on: `Delegate=yes` below `[Service]` in the service that kvmlet runs in; for \
                 users that log in, `Delegate=cpu cpuset memory pids` in \
                 /etc/systemd/system/user@.service.d/kvmlet.conf, then log in anew. Without systemd, write \
                 `+{0}` to cgroup.subtree_control of each cgroup above",
                controller.name()
            ),
            Self::Denied { version: 1, .. } => {
                "run as root, or boot the host with cgroup version 2, which can be delegated to users".into()
            }
            Self::Denied { .. } | Self::OutOfReach { .. } => {
                format!("{OWN_SCOPE}; for a service, set `Delegate=yes` in its unit; or run as root")
            }
            Self::ReadOnly { .. } => {
                "start the container with cgroups that it may write to (`--privileged`, or with podman \
                 `--security-opt unmask=/sys/fs/cgroup`), or limit the container as a whole"
                    .into()
            }
            Self::Write { source, path, .. } if kind(source) == io::ErrorKind::InvalidInput => {
                let above = path.parent().and_then(std::path::Path::parent);
                format!(
                    "a cgroup above has less to give: look at {}",
                    above.unwrap_or(path).display()
                )
            }
            Self::Make { source, .. } | Self::Write { source, .. } | Self::Join { source, .. }
                if kind(source) == io::ErrorKind::PermissionDenied =>
            {
                format!("run as root, or {OWN_SCOPE}")
            }
            _ => return None,
        })
    }
}
