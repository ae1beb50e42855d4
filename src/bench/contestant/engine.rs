//! podman, docker and containerd's `ctr`: container engines with images, driven through their own commands with
//! state of the benchmark's own. Those that need a daemon get one that ends with the benchmark; a daemon that
//! serves others here is left alone.

use super::daemon::{Daemon, briefly};
use super::{Contestant, Kind, Presence, Service, image, probe_program};
use crate::launch::{Launch, output};
use crate::workshop::{Programs, Workshop};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Where an engine keeps its state, and the cgroup that it is given.
pub(super) struct Place {
    /// A directory of the engine's own.
    pub directory: PathBuf,
    /// Name of the cgroup, and of the namespace of images.
    pub group: String,
}

impl Place {
    /// A path in the engine's directory.
    pub fn path(&self, name: &str) -> OsString {
        self.directory.join(name).into()
    }
}

/// What one engine is, and how it is driven. The functions give words of command lines.
pub(super) struct Dialect {
    pub name: &'static str,
    pub about: &'static str,
    /// Tells the version.
    pub program: &'static str,
    pub install: &'static str,
    /// The daemon; none if there are no words.
    pub daemon: fn(&Place) -> Vec<OsString>,
    /// A file that the daemon reads: its name and contents.
    pub settings: fn(&Place) -> Option<(&'static str, String)>,
    /// The client with its global options.
    pub client: fn(&Place) -> Vec<OsString>,
    /// Loads an image, whose path follows.
    pub load: &'static [&'static str],
    /// Runs a container of this name; the service's command follows.
    pub run: fn(&Place, &str) -> Vec<String>,
    /// Command lines that take a container away, whose name follows.
    pub remove: &'static [&'static [&'static str]],
}

/// A container engine.
pub(super) struct Engine {
    dialect: Dialect,
    service: PathBuf,
    place: Option<Place>,
    _daemon: Option<Daemon>,
}

impl Engine {
    pub fn new(programs: &Programs, dialect: Dialect) -> Self {
        Self {
            dialect,
            service: programs.service(),
            place: None,
            _daemon: None,
        }
    }

    fn load(&self, place: &Place) -> Result<(), String> {
        let image = image::make(&place.directory, &self.service)?;
        let mut argv = (self.dialect.client)(place);
        argv.extend(self.dialect.load.iter().map(OsString::from));
        argv.push(image.into());
        let words: Vec<_> = argv.iter().map(OsString::as_os_str).collect();
        output(&words).map(drop)
    }

    fn start_daemon(&self, place: &Place) -> Result<Option<Daemon>, String> {
        let argv = (self.dialect.daemon)(place);
        if argv.is_empty() {
            return Ok(None);
        }
        if let Some((name, text)) = (self.dialect.settings)(place) {
            fs::write(place.directory.join(name), text)
                .map_err(|error| format!("`{name}` cannot be written: {error}"))?;
        }
        let mut version = (self.dialect.client)(place);
        version.push("version".into());
        let log = place.directory.join("log");
        Daemon::start(&argv, &log, || briefly(&version)).map(Some)
    }
}

impl Contestant for Engine {
    fn name(&self) -> &'static str {
        self.dialect.name
    }

    fn about(&self) -> &'static str {
        self.dialect.about
    }

    fn kind(&self) -> Kind {
        Kind::Container
    }

    fn probe(&self) -> Presence {
        probe_program(self.dialect.program, "--version", self.dialect.install)
    }

    fn prepare(&mut self, workshop: &Workshop) -> Result<(), String> {
        let place = Place {
            directory: workshop.path().join(self.dialect.name),
            group: workshop.name(),
        };
        make_directory(&place.directory)?;
        let daemon = self.start_daemon(&place)?;
        self.load(&place)?;
        (self.place, self._daemon) = (Some(place), daemon);
        Ok(())
    }

    fn launch(&self, number: usize, service: Service) -> Result<Launch, String> {
        let place = self.place.as_ref().ok_or("there is no image")?;
        let id = format!(
            "kvmlet-bench-{}-{}-{number}",
            std::process::id(),
            self.dialect.name
        );
        let mut argv = (self.dialect.client)(place);
        argv.extend((self.dialect.run)(place, &id).into_iter().map(Into::into));
        argv.extend(image::command(service).iter().map(OsString::from));
        let launch = self
            .dialect
            .remove
            .iter()
            .fold(Launch::new(argv), |launch, words| {
                let mut argv = (self.dialect.client)(place);
                argv.extend(words.iter().map(OsString::from));
                argv.push(id.clone().into());
                launch.clean(argv)
            });
        Ok(launch)
    }
}

fn make_directory(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| format!("`{}`: {error}", path.display()))
}
