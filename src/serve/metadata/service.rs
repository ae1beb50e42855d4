//! The service as whoever attends a VM has it.

use super::answers::Config;
use super::counted::{Counted, Slate};
use super::process::WORD;
use kvmlet_control::Channel;
use kvmlet_sys::process::{self, Child, keep};
use kvmlet_sys::sealed::sealed;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::Value;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A process that answers a guest. It ends with this.
#[derive(Debug)]
pub struct Service {
    child: Option<Child>,
    channel: Channel,
    slate: Slate,
}

impl Service {
    /// Starts one, for the guest's interfaces at the other ends of these sockets. Its messages go to the log, or to standard error.
    ///
    /// # Errors
    /// When the host gives no process.
    pub fn start(config: &Config, sockets: &[OwnedFd], log: Option<File>) -> io::Result<Self> {
        let (channel, theirs) = Channel::pair()?;
        let theirs = OwnedFd::from(theirs);
        let slate = Slate::new()?;
        let kept: Vec<RawFd> = [theirs.as_fd(), slate.as_fd()]
            .into_iter()
            .chain(sockets.iter().map(AsFd::as_fd))
            .map(|it| it.as_raw_fd())
            .collect();
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(WORD)
            .arg(serde_json::to_string(config)?)
            .args(kept.iter().map(RawFd::to_string))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(log) = log {
            command.stderr(log);
        }
        let prepare = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            kept.iter().try_for_each(|fd| keep(*fd))
        };
        // SAFETY: between fork and exec it makes system calls, and touches no memory but its own.
        unsafe { command.pre_exec(prepare) };
        let child = Some(process::spawn(&mut command)?);
        Ok(Self {
            child,
            channel,
            slate,
        })
    }

    /// Has it tell this from now on: a guest that asks after that finds it.
    ///
    /// # Errors
    /// When it has ended, or stands still.
    pub fn tell(&self, data: &Value) -> io::Result<()> {
        tell(&self.channel, data)
    }

    /// What it has done so far, by what it says itself.
    pub fn counted(&self) -> Counted {
        self.slate.read()
    }
}

/// Tells the process at the other end what there is.
pub(super) fn tell(channel: &Channel, data: &Value) -> io::Result<()> {
    // It is not theirs to change.
    let file = sealed("metadata", data.to_string().as_bytes())?;
    channel.try_send_with(&[1], file.as_fd())
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            let _ = child.signal(Signal::KILL);
            let _ = child.wait();
        }
    }
}
