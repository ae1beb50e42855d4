//! What other VMMs have in common: the guests that kvmlet boots, started by their own commands.

use super::linux::Guest;
use super::{Contestant, Kind, Presence, Service, probe_program};
use crate::launch::Launch;
use crate::workshop::{Programs, Workshop};
use kvmlet_sys::kvm::{self, Execution};
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

/// What a VM is made from: the same for all VMMs.
pub(super) struct Parts {
    pub kernel: PathBuf,
    /// Initramfs and command line of Linux; a bare-metal guest has neither.
    pub linux: Option<(PathBuf, &'static str)>,
    /// Where a configuration can be written to.
    pub file: PathBuf,
    /// How this host runs guest kernels.
    pub interpreted: bool,
}

/// How one VMM is asked for a VM of 128 MiB with 1 vCPU, with its serial port on standard output.
#[derive(Clone, Copy)]
pub(super) struct Dialect {
    pub metal: Entry,
    pub linux: Entry,
    pub program: &'static str,
    /// What it is asked for to tell its version.
    pub version: &'static str,
    pub install: &'static str,
    pub arguments: fn(&Parts) -> Vec<OsString>,
    /// The contents of [`Parts::file`].
    pub settings: fn(&Parts) -> Option<String>,
}

/// What a VMM is among the contestants with one kind of guest.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub name: &'static str,
    pub about: &'static str,
}

/// Another VMM, with Linux or with the bare-metal guest.
pub(super) struct Vmm {
    dialect: Dialect,
    entry: Entry,
    kind: Kind,
    linux: Guest,
    metal: [PathBuf; 2],
    directory: PathBuf,
}

impl Vmm {
    /// One that boots Linux.
    pub fn linux(programs: &Programs, dialect: Dialect) -> Self {
        Self::new(programs, Kind::MicroVm, dialect.linux, dialect)
    }

    /// One that boots the bare-metal guest.
    pub fn metal(programs: &Programs, dialect: Dialect) -> Self {
        Self::new(programs, Kind::BareMetal, dialect.metal, dialect)
    }

    fn new(programs: &Programs, kind: Kind, entry: Entry, dialect: Dialect) -> Self {
        Self {
            dialect,
            entry,
            kind,
            linux: Guest::new(programs),
            metal: [programs.guest("ready"), programs.guest("ready_stay")],
            directory: PathBuf::new(),
        }
    }

    fn parts(&self, number: usize, service: Service) -> Result<Parts, String> {
        let linux = self.kind == Kind::MicroVm;
        let kernel = match service {
            _ if linux => self
                .linux
                .kernel
                .clone()
                .ok_or("there is no guest kernel")?,
            Service::Ends => self.metal[0].clone(),
            Service::Stays => self.metal[1].clone(),
        };
        Ok(Parts {
            kernel,
            linux: linux.then(|| (self.linux.initramfs.clone(), Guest::cmdline(service))),
            file: self.directory.join(format!("{number}.json")),
            interpreted: matches!(Execution::detect(), Ok(Execution::Interpreted)),
        })
    }
}

impl Contestant for Vmm {
    fn name(&self) -> &'static str {
        self.entry.name
    }

    fn about(&self) -> &'static str {
        self.entry.about
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn probe(&self) -> Presence {
        let presence = probe_program(
            self.dialect.program,
            self.dialect.version,
            self.dialect.install,
        );
        if !matches!(presence, Presence::Present { .. }) {
            return presence;
        }
        let missing = match self.kind {
            Kind::MicroVm => self.linux.missing(),
            _ => None,
        };
        let kvm = || kvm::open().err().map(|error| error.to_string());
        match missing.or_else(kvm) {
            Some(message) => Presence::Unusable { message },
            None => presence,
        }
    }

    fn prepare(&mut self, workshop: &Workshop) -> Result<(), String> {
        self.directory = workshop.path().join(self.entry.name);
        fs::create_dir_all(&self.directory)
            .map_err(|error| format!("`{}`: {error}", self.directory.display()))
    }

    fn launch(&self, number: usize, service: Service) -> Result<Launch, String> {
        let parts = self.parts(number, service)?;
        if let Some(text) = (self.dialect.settings)(&parts) {
            fs::write(&parts.file, text)
                .map_err(|error| format!("`{}`: {error}", parts.file.display()))?;
        }
        let mut argv = vec![OsString::from(self.dialect.program)];
        argv.extend((self.dialect.arguments)(&parts));
        Ok(Launch {
            // None of them knows how kvmlet's guests power off: some go on, QEMU's is reset half a minute later.
            stays: true,
            ..Launch::new(argv)
        })
    }
}

/// Words of a command line.
pub(super) fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).into()
}
