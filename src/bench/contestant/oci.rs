//! What crun and runc have in common: the command line of an OCI runtime.

use super::{Contestant, Kind, Presence, Service, bundle, probe_program};
use crate::launch::Launch;
use crate::workshop::{Programs, Workshop};
use kvmlet_spec::CpuQuota;
use std::ffi::OsString;
use std::path::PathBuf;

/// An OCI runtime, started once for each container with a bundle of the benchmark's own.
pub(super) struct Runtime {
    pub name: &'static str,
    pub about: &'static str,
    pub program: &'static str,
    pub install: &'static str,
    /// Global options.
    pub options: &'static [&'static str],
    /// What of the CPUs its cgroup may have.
    pub share: Option<CpuQuota>,
    pub service: PathBuf,
    /// The runtime's state, the root file system and the bundles.
    pub directory: PathBuf,
    pub root: PathBuf,
    /// The cgroup below which containers have theirs, so that all of them are cleared with it: a runtime that fails
    /// leaves some.
    pub group: String,
}

impl Runtime {
    pub fn new(
        programs: &Programs,
        name: &'static str,
        about: &'static str,
        program: &'static str,
    ) -> Self {
        Self {
            name,
            about,
            program,
            install: "",
            options: &[],
            share: None,
            service: programs.service(),
            directory: PathBuf::new(),
            root: PathBuf::new(),
            group: String::new(),
        }
    }

    fn command(&self, words: &[&str]) -> Vec<OsString> {
        let mut argv = vec![
            OsString::from(self.program),
            "--root".into(),
            self.directory.join("state").into(),
        ];
        argv.extend(self.options.iter().chain(words).map(OsString::from));
        argv
    }
}

impl Contestant for Runtime {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn kind(&self) -> Kind {
        Kind::Container
    }

    fn probe(&self) -> Presence {
        probe_program(self.program, "--version", self.install)
    }

    fn prepare(&mut self, workshop: &Workshop) -> Result<(), String> {
        self.directory = workshop.path().join(self.name);
        self.group = workshop.name();
        self.root = bundle::make_root(&self.directory, &self.service)
            .map_err(|error| format!("the bundle cannot be made: {error}"))?;
        Ok(())
    }

    fn launch(&self, number: usize, service: Service) -> Result<Launch, String> {
        let id = format!("kvmlet-bench-{}-{}-{number}", std::process::id(), self.name);
        let bundle = self.directory.join(format!("bundle-{number}"));
        bundle::write(
            &bundle,
            &self.root,
            &format!("/{}/{id}", self.group),
            (service, self.share),
        )
        .map_err(|error| format!("the bundle cannot be made: {error}"))?;
        let mut argv = self.command(&["run", "--bundle"]);
        argv.extend([bundle.into_os_string(), OsString::from(&id)]);
        Ok(Launch::new(argv).clean(self.command(&["delete", "--force", &id])))
    }
}
