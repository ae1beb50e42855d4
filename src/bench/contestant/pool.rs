//! `kvmlet pool take` of a bare-metal guest: what a start costs when the machine was restored before anybody wanted it.

use super::kvmlet::{jail_flag, probe_with};
use super::restore::save;
use super::{Contestant, Kind, Presence, Service};
use crate::launch::{Launch, output};
use crate::leftovers;
use crate::workshop::{Programs, Workshop};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// More than are taken while one is restored.
const SIZE: &str = "3";

/// A guest that says that it is ready as soon as it goes on.
pub(super) struct Pool {
    jailed: bool,
    kvmlet: PathBuf,
    guest: PathBuf,
    /// What the pool is called, once there is one.
    name: Option<String>,
}

impl Pool {
    pub fn new(programs: &Programs, jailed: bool) -> Self {
        Self {
            jailed,
            kvmlet: programs.kvmlet.clone(),
            guest: programs.guest("ready_again"),
            name: None,
        }
    }
}

impl Contestant for Pool {
    fn name(&self) -> &'static str {
        match self.jailed {
            true => "kvmlet-pool",
            false => "kvmlet-pool-nojail",
        }
    }

    fn about(&self) -> &'static str {
        match self.jailed {
            true => {
                "kvmlet pool take of a guest without a kernel, 128 MiB, 1 vCPU, a serial port, in a jail, restored before it is taken"
            }
            false => {
                "kvmlet pool take of a guest without a kernel, 128 MiB, 1 vCPU, a serial port, without a jail, restored before it is taken"
            }
        }
    }

    fn kind(&self) -> Kind {
        Kind::BareMetal
    }

    fn probe(&self) -> Presence {
        probe_with(&[&self.guest])
    }

    fn prepare(&mut self, workshop: &Workshop) -> Result<(), String> {
        let place = |extension: &str| {
            let name = format!("{}.{extension}", Contestant::name(self));
            workshop.path().join(name)
        };
        let saved = place("snapshot");
        save(&self.kvmlet, &self.guest, &place("socket"), &saved)?;
        let name = format!("{}-{}", workshop.name(), Contestant::name(self));
        let mut create = Command::new(&self.kvmlet);
        create.args(["pool", "create", "--size", SIZE, "--name", &name]);
        create.arg(saved).arg(jail_flag(self.jailed));
        // Its processes go with the workshop, should this one be killed.
        leftovers::mark(&mut create, &place("mark"));
        let made = create.stdin(Stdio::null()).output();
        let made = made.map_err(|error| format!("the pool cannot be made: {error}"))?;
        self.name = Some(name);
        match made.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&made.stderr).trim_end().into()),
        }
    }

    fn launch(&self, _number: usize, service: Service) -> Result<Launch, String> {
        if service == Service::Stays {
            // The pool has made it, and others beside it: whose pages are whose is not known here.
            return Err(
                "a VM of a pool is not of this start: kvmlet-restore has the same guest".into(),
            );
        }
        let name = self.name.as_ref().ok_or("there is no pool")?;
        let words = [
            self.kvmlet.as_os_str(),
            OsStr::new("pool"),
            OsStr::new("take"),
            OsStr::new(name),
        ];
        Ok(Launch::new(words))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let words = ["pool", "rm", "--force", name].map(OsStr::new);
            let _ = output(&[&[self.kvmlet.as_os_str()], &words[..]].concat());
        }
    }
}
