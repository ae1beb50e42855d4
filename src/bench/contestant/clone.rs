//! `kvmlet clone` of an instance that runs: a bare-metal guest with an agent, which is told who it is now.

use super::kvmlet::probe_with;
use super::{Contestant, Kind, Presence, Service};
use crate::launch::{Launch, output};
use crate::leftovers;
use crate::workshop::{Programs, Workshop};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The command comes back when the other runs and its agent has been told who it is. That it is gone is another
/// command's word.
const SCRIPT: &str =
    r#""$0" clone --rm "$1" "$2" >/dev/null && echo ready && exec "$0" rm --force "$2" >/dev/null"#;

/// Whoever clones it waits until its agent answers.
pub(super) struct Clone {
    kvmlet: PathBuf,
    guest: PathBuf,
    /// What the instance is called that is cloned, once it runs.
    first: Option<String>,
}

impl Clone {
    pub fn new(programs: &Programs) -> Self {
        Self {
            kvmlet: programs.kvmlet.clone(),
            guest: programs.guest("agent"),
            first: None,
        }
    }

    fn remove(&self, name: &OsStr) -> [OsString; 4] {
        let words = ["rm", "--force"].map(OsString::from);
        let [rm, force] = words;
        [self.kvmlet.clone().into(), rm, force, name.into()]
    }
}

impl Contestant for Clone {
    fn name(&self) -> &'static str {
        "kvmlet-clone"
    }

    fn about(&self) -> &'static str {
        "sh and kvmlet clone of an instance without a kernel, 128 MiB, 1 vCPU, in a jail, until its agent was told who it is"
    }

    fn kind(&self) -> Kind {
        Kind::BareMetal
    }

    fn probe(&self) -> Presence {
        probe_with(&[&self.guest])
    }

    fn prepare(&mut self, workshop: &Workshop) -> Result<(), String> {
        let name = format!("{}-{}", workshop.name(), Contestant::name(self));
        let root = workshop.path().join(format!("{name}.root"));
        std::fs::create_dir_all(&root).map_err(|error| format!("`{}`: {error}", root.display()))?;
        let mut run = Command::new(&self.kvmlet);
        run.args(["run", "-d", "--rm", "--memory", "128M", "--name", &name]);
        run.arg("--kernel").arg(&self.guest).arg(&root);
        // Its keeper goes with the workshop, should this process be killed.
        leftovers::mark(&mut run, &root);
        let made = run.args(["stay"]).stdin(Stdio::null()).output();
        let made = made.map_err(|error| format!("there is nothing to clone: {error}"))?;
        self.first = Some(name);
        match made.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&made.stderr).trim_end().into()),
        }
    }

    fn launch(&self, number: usize, service: Service) -> Result<Launch, String> {
        if service == Service::Stays {
            return Err(
                "what a clone takes beside what it was cloned from is in docs/snapshots.md".into(),
            );
        }
        let first = self.first.as_ref().ok_or("there is nothing to clone")?;
        let name = OsString::from(format!("{first}-{number}"));
        let words = [
            "sh".as_ref(),
            "-c".as_ref(),
            OsStr::new(SCRIPT),
            self.kvmlet.as_os_str(),
        ];
        let words = words.into_iter().chain([first.as_ref(), name.as_os_str()]);
        Ok(Launch::new(words).clean(self.remove(&name)))
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        if let Some(name) = &self.first {
            let words = self.remove(name.as_ref());
            let _ = output(&words.each_ref().map(OsString::as_os_str));
        }
    }
}
