use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use crate::User;

/// All that a guest's init is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestSpec {
    /// The one service that the guest runs.
    pub service: ServiceSpec,
    /// Host name to set, if any.
    pub hostname: Option<String>,
    /// Network interfaces to configure. Loopback is always brought up.
    pub networks: Vec<NetworkSpec>,
    /// Where the root file system is; without one the guest stays in its initramfs or in the root
    /// that the kernel has mounted.
    pub root: Option<RootSpec>,
    /// How long the service may take to end when the guest is asked to, in seconds;
    /// [`STOP_TIMEOUT_S`] if nothing is said.
    pub stop_timeout_s: Option<u32>,
    /// How big the terminal is that the console ends in.
    pub console: Option<ConsoleSize>,
    /// How init reaches the host, which then says over [`crate::channel`] what runs, instead of `service`, and has its
    /// streams. Without it init asks nobody.
    pub agent: Option<AgentSpec>,
}

/// How the guest's agent reaches the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentSpec {
    /// Over AF_VSOCK.
    Vsock,
    /// Over Unix sockets in this directory, for an init in a container: it connects to `host`, and listens at `guest`.
    Directory(String),
}

impl fmt::Display for AgentSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vsock => "vsock",
            Self::Directory(path) => path,
        })
    }
}

impl GuestSpec {
    /// How long the service may take to end once it is asked to, in seconds.
    pub fn stop_timeout_s(&self) -> u32 {
        self.stop_timeout_s.unwrap_or(STOP_TIMEOUT_S)
    }
}

/// How long a service may take to end, unless something else is asked for: as `docker stop` has it.
pub const STOP_TIMEOUT_S: u32 = 10;

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsoleSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// The service of a guest: one command and its surroundings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceSpec {
    /// The program and its arguments. A program without a slash is looked for in `PATH`.
    pub command: Vec<String>,
    /// Environment variables, in order; a name holds no `=` and no NUL byte.
    pub env: Vec<(String, String)>,
    /// Directory to start in; `/` if none.
    pub workdir: Option<String>,
    /// Whom to run as; root if nobody.
    pub user: Option<User>,
}

impl ServiceSpec {
    /// What runs when `self` is asked for on top of what `image` says: a command, working
    /// directory or user of `self` replaces the image's, environment variables are added to it.
    pub fn over(self, image: Self) -> Self {
        let mut env = image.env;
        for (name, value) in self.env {
            set_variable(&mut env, name, value);
        }
        Self {
            command: if self.command.is_empty() {
                image.command
            } else {
                self.command
            },
            env,
            workdir: self.workdir.or(image.workdir),
            user: self.user.or(image.user),
        }
    }
}

/// Sets `name` in `env`, replacing the value that it has there.
pub(crate) fn set_variable(env: &mut Vec<(String, String)>, name: String, value: String) {
    match env.iter_mut().find(|(known, _)| *known == name) {
        Some(variable) => variable.1 = value,
        None => env.push((name, value)),
    }
}

/// One network interface of a guest and its static configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Name in the guest, such as `eth0`.
    pub interface: String,
    /// The interface's address.
    pub address: IpAddr,
    /// Length of the address's network prefix in bits.
    pub prefix: u8,
    /// Where the default route leads.
    pub gateway: Option<IpAddr>,
    /// Name servers, written to `/etc/resolv.conf`.
    pub dns: Vec<IpAddr>,
    /// Maximum transmission unit in bytes, if not the device's own.
    pub mtu: Option<u32>,
}

/// The root file system of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootSpec {
    /// Block device in the guest, such as `/dev/vda`.
    pub device: String,
    /// What is on it; tried out if not said.
    pub fstype: Option<FileSystem>,
    /// Mount it read-only. Under an overlay it is so in any case.
    pub read_only: bool,
    /// A writable layer over the device.
    pub overlay: Option<Overlay>,
}

/// File systems that a root can be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// Read-only image.
    Erofs,
    /// Writable disk.
    Ext4,
}

impl FileSystem {
    /// The kernel's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Erofs => "erofs",
            Self::Ext4 => "ext4",
        }
    }
}

/// The writable layer over a root that is shared with other guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    /// In the guest's memory, gone with the guest.
    Tmpfs,
    /// On a block device of the guest's own, such as `/dev/vdb`, which holds an ext4 file system.
    Device(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_the_image() {
        let image = ServiceSpec {
            command: ["nginx".into()].into(),
            env: [("A".into(), "1".into()), ("B".into(), "2".into())].into(),
            workdir: Some("/srv".into()),
            user: Some(User::ROOT),
        };
        let asked = ServiceSpec {
            env: [("B".into(), "3".into()), ("C".into(), "4".into())].into(),
            workdir: Some("/".into()),
            ..Default::default()
        };
        let merged = asked.over(image.clone());
        assert_eq!(merged.command, image.command);
        assert_eq!(merged.workdir.as_deref(), Some("/"));
        assert_eq!(merged.user, image.user);
        let env: Vec<_> = merged
            .env
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(env, [("A", "1"), ("B", "3"), ("C", "4")]);

        let other = ServiceSpec {
            command: ["sh".into()].into(),
            ..Default::default()
        };
        assert_eq!(other.over(image).command, ["sh"]);
    }
}
