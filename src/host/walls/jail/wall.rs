//! What a jail is made of, and what to do where the host does not give it.

use kvmlet_sys::process;
use std::fmt;
use std::io;

/// A part of a jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wall {
    /// A process to be confined.
    Process,
    /// A PID namespace: no other process can be seen or signalled.
    Pids,
    /// Nothing open but what was given.
    Descriptors,
    /// Limits on what more the process can take.
    Limits,
    /// A mount namespace.
    Mounts,
    /// A network namespace with nothing in it.
    Network,
    /// A namespace of System V IPC and POSIX message queues.
    Ipc,
    /// A namespace of host names.
    HostName,
    /// An empty root that cannot be written.
    Root,
    /// A user and a group that nobody else has.
    User,
    /// A user namespace with no user in it.
    UserNamespace,
    /// A session keyring without keys.
    Keyring,
    /// No capabilities, and no way to get some.
    Capabilities,
    /// Landlock: no file can be opened, no TCP port used, no process outside signalled.
    Landlock,
    /// The end of the VM with that of whoever attends it.
    Lifeline,
    /// Lists of the system calls that each kind of thread may make.
    Seccomp,
}

impl Wall {
    pub(super) const ALL: [Wall; 16] = [
        Wall::Process,
        Wall::Pids,
        Wall::Descriptors,
        Wall::Limits,
        Wall::Mounts,
        Wall::Network,
        Wall::Ipc,
        Wall::HostName,
        Wall::Root,
        Wall::User,
        Wall::UserNamespace,
        Wall::Keyring,
        Wall::Capabilities,
        Wall::Landlock,
        Wall::Lifeline,
        Wall::Seccomp,
    ];

    /// A second wall behind others: a jail is one without it, and kernels are built without it.
    pub fn is_optional(self) -> bool {
        matches!(self, Wall::UserNamespace | Wall::Keyring | Wall::Landlock)
    }

    fn is_namespace(self) -> bool {
        use Wall::*;
        matches!(
            self,
            Pids | Mounts | Network | Ipc | HostName | UserNamespace
        )
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wall::Process => "a process",
            Wall::Pids => "a PID namespace",
            Wall::Descriptors => "a look at what is open",
            Wall::Limits => "limits on resources",
            Wall::Mounts => "a mount namespace",
            Wall::Network => "a network namespace",
            Wall::Ipc => "an IPC namespace",
            Wall::HostName => "a UTS namespace",
            Wall::Root => "an empty root",
            Wall::User => "a user of its own",
            Wall::UserNamespace => "a user namespace",
            Wall::Keyring => "a keyring of its own",
            Wall::Capabilities => "dropped capabilities",
            Wall::Landlock => "Landlock",
            Wall::Lifeline => "an end with its supervisor",
            Wall::Seccomp => "seccomp",
        })
    }
}

/// A wall that this host does not give.
#[derive(Debug, thiserror::Error)]
#[error("the jail cannot have {wall}")]
pub struct Missing {
    /// The wall.
    pub wall: Wall,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl Missing {
    /// What a person can do about it.
    pub fn help(&self) -> &'static str {
        let refused = matches!(
            self.source.raw_os_error(),
            Some(libc::EPERM | libc::EACCES | libc::ENOSPC | libc::EUSERS)
        );
        match self.wall {
            Wall::Process => match self.source.raw_os_error() {
                Some(libc::EAGAIN) => process::MORE_PROCESSES,
                Some(libc::ENOMEM) => "end other programs: the host is short of memory",
                Some(libc::ENOSYS) => "use a host kernel from 5.3 on",
                _ => "`dmesg` may say what forbids it",
            },
            wall if wall.is_namespace() && refused => {
                "run kvmlet as root (in a container: with CAP_SYS_ADMIN), or allow user namespaces to others: \
                 kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, and where AppArmor guards \
                 them, kernel.apparmor_restrict_unprivileged_userns=0 (sysctl); a container's seccomp profile has to \
                 allow `unshare`, and within a chroot there are none"
            }
            wall if wall.is_namespace() => {
                "use a host kernel with CONFIG_NAMESPACES and all below it"
            }
            Wall::Root => "allow mounts within user namespaces, or run kvmlet as root",
            Wall::Descriptors if self.source.kind() == io::ErrorKind::NotFound => {
                "mount /proc, which tells what a process has open"
            }
            Wall::Descriptors => {
                "redirect standard input and output from files and not from directories"
            }
            Wall::User => {
                "run kvmlet as an ordinary user, or as root with CAP_SETUID, CAP_SETGID and CAP_KILL where user ids \
                 from 1879048192 on can be used"
            }
            Wall::Keyring => "raise kernel.keys.maxkeys (sysctl)",
            Wall::Landlock => {
                "use a host kernel from 5.13 on with CONFIG_SECURITY_LANDLOCK, and `landlock` in the list of \
                 `lsm=` on its command line"
            }
            Wall::Seccomp => "use a host kernel from 4.14 on with CONFIG_SECCOMP_FILTER",
            Wall::Lifeline => "whoever attended the VM has ended",
            _ => "`dmesg` and the host's audit log may say what forbids it",
        }
    }
}
