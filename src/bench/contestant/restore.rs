//! `kvmlet restore` of a bare-metal guest: what a start costs when the machine was made before.

use super::kvmlet::{jail_flag, probe_with};
use super::{Contestant, Kind, Presence, Service};
use crate::launch::{Launch, output};
use crate::workshop::{Programs, Workshop};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A guest that says that it is ready as soon as it goes on from a snapshot.
pub(super) struct Restore {
    jailed: bool,
    kvmlet: PathBuf,
    /// The guest that ends, and the one that stays.
    guests: [PathBuf; 2],
    /// Their files.
    saved: Vec<PathBuf>,
}

impl Restore {
    pub fn new(programs: &Programs, jailed: bool) -> Self {
        Self {
            jailed,
            kvmlet: programs.kvmlet.clone(),
            guests: ["ready_again", "ready_again_stay"].map(|name| programs.guest(name)),
            saved: Vec::new(),
        }
    }
}

/// Runs a guest, and saves it there as soon as it waits for that.
pub(super) fn save(kvmlet: &Path, guest: &Path, socket: &Path, saved: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the guest cannot be run: {error}");
    let listener = UnixListener::bind(socket).map_err(failed)?;
    // A descriptor of that number, which this process cannot give a child, and a shell can.
    const SCRIPT: &str = "exec \"$@\" 3<&0 </dev/null";
    let child = Command::new("sh")
        .args(["-c", SCRIPT, "sh"])
        .arg(kvmlet)
        .args(["boot", "--no-jail", "--no-rng", "--control-fd", "3"])
        .arg("--kernel")
        .arg(guest)
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut guest = Guest(child.map_err(failed)?);
    let said = guest.0.stdout.take().map(BufReader::new);
    let mut lines = said.into_iter().flat_map(BufRead::lines);
    let is_there = |line: Result<String, _>| line.is_ok_and(|line| line.trim() == "saved");
    if !lines.any(is_there) {
        return Err("the guest that is to be saved says nothing".into());
    }
    let [kvmlet, verb] = [kvmlet.as_os_str(), OsStr::new("snapshot")];
    output(&[kvmlet, verb, socket.as_os_str(), saved.as_os_str()]).map(drop)
}

/// A process that goes with this.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Contestant for Restore {
    fn name(&self) -> &'static str {
        match self.jailed {
            true => "kvmlet-restore",
            false => "kvmlet-restore-nojail",
        }
    }

    fn about(&self) -> &'static str {
        match self.jailed {
            true => {
                "kvmlet restore of a guest without a kernel, 128 MiB, 1 vCPU, a serial port, in a jail, from a file in the page cache"
            }
            false => {
                "kvmlet restore of a guest without a kernel, 128 MiB, 1 vCPU, a serial port, without a jail, from a file in the page cache"
            }
        }
    }

    fn kind(&self) -> Kind {
        Kind::BareMetal
    }

    fn probe(&self) -> Presence {
        probe_with(&self.guests.each_ref().map(PathBuf::as_path))
    }

    fn prepare(&mut self, workshop: &Workshop) -> Result<(), String> {
        let place = |extension: &str| {
            let name = format!("{}.{extension}", self.name());
            workshop.path().join(name)
        };
        let ways = self.guests.iter().zip(["ends", "stays"]);
        let saved = ways.map(|(guest, way)| {
            let saved = place(&format!("{way}.snapshot"));
            save(&self.kvmlet, guest, &place(way), &saved)?;
            Ok(saved)
        });
        self.saved = saved.collect::<Result<_, String>>()?;
        Ok(())
    }

    fn launch(&self, _number: usize, service: Service) -> Result<Launch, String> {
        let saved = match service {
            Service::Ends => self.saved.first(),
            Service::Stays => self.saved.get(1),
        };
        let saved = saved.ok_or("nothing was saved")?;
        let words = [
            self.kvmlet.as_os_str(),
            OsStr::new("restore"),
            OsStr::new(jail_flag(self.jailed)),
            saved.as_os_str(),
        ];
        Ok(Launch::new(words))
    }
}
