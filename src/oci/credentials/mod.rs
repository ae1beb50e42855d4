//! Passwords for registries, where docker and podman keep them: in files, or with helpers that these files name.

mod file;
mod helper;

use file::File;
use kvmlet_spec::{Advice, Remedy};
use kvmlet_sys::{environment, whole_file};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password, or a token that is used as one.
        password: String,
    },
    /// A token that is good for other tokens.
    IdentityToken(String),
}

/// No secret gets into a log.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Credentials")
    }
}

/// Why credentials are not found, or not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the host says.
        #[source]
        source: io::Error,
    },
    /// A file has another shape.
    #[error("`{}` is not a file of passwords as docker has them", .path.display())]
    Shape {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] whole_file::Error),
    /// Its directory cannot be made.
    #[error("cannot make the directory `{}`", .path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// What the host says.
        #[source]
        source: io::Error,
    },
    /// A helper does not do what it is for.
    #[error("the helper `{program}`, which `{}` names, {why}", .path.display())]
    Helper {
        /// Which one.
        program: String,
        /// Where it is named.
        path: PathBuf,
        /// What it did.
        why: String,
    },
    /// Nobody's home.
    #[error("there is no place for passwords: HOME is not set")]
    Home,
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        match self {
            Self::Helper { .. } => Some("install it, or take its name out of that file".into()),
            Self::Write(error) => error.help().map(Into::into),
            _ => None,
        }
    }
}

/// Where a user's passwords are.
#[derive(Clone, Debug)]
pub struct Keyring {
    /// Those that are read, the first that knows a registry counts.
    read: Vec<PathBuf>,
    /// The one that `login` writes to.
    written: Option<PathBuf>,
}

/// What is shown to some repositories: looked up before anybody is talked to, so that who talks needs no passwords but these.
#[derive(Clone, Debug, Default)]
pub struct Shown(Vec<One>);

/// One of these.
#[derive(Clone, Debug)]
struct One {
    registry: String,
    repository: String,
    found: Result<Option<Credentials>, Arc<Error>>,
}

impl Shown {
    /// What to show to a registry for a repository, if anything is known.
    ///
    /// # Errors
    /// When it could not be looked up: that is told where somebody asks for it.
    pub fn to(&self, registry: &str, repository: &str) -> Result<Option<Credentials>, Arc<Error>> {
        let is_it = |one: &&One| one.registry == registry && one.repository == repository;
        let one = self.0.iter().find(is_it);
        one.map_or(Ok(None), |one| one.found.clone())
    }
}

/// What docker calls Docker Hub in its files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

impl Keyring {
    /// This user's: `REGISTRY_AUTH_FILE` alone if it is set, as for podman; or else docker's file (`DOCKER_CONFIG` or
    /// `~/.docker`), and podman's.
    pub fn of_user() -> Self {
        let path = |name| {
            environment::variable(name)
                .filter(|it| !it.is_empty())
                .map(PathBuf::from)
        };
        if let Some(file) = path("REGISTRY_AUTH_FILE") {
            return Self {
                read: vec![file.clone()],
                written: Some(file),
            };
        }
        let home = environment::home();
        let below_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let docker = path("DOCKER_CONFIG").or_else(|| below_home(".docker"));
        let docker = docker.map(|directory| directory.join("config.json"));
        let podman = path("XDG_RUNTIME_DIR").map(|place| place.join("containers/auth.json"));
        let lasting = path("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
        let lasting = lasting.map(|place| place.join("containers/auth.json"));
        Self {
            read: [docker.clone(), podman, lasting]
                .into_iter()
                .flatten()
                .collect(),
            written: docker,
        }
    }

    /// One file, for reading and writing.
    pub fn in_file(path: &Path) -> Self {
        Self {
            read: vec![path.into()],
            written: Some(path.into()),
        }
    }

    /// What to show to a registry for a repository, if anything is known.
    ///
    /// # Errors
    /// When a file cannot be read, or a helper does not answer.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<Credentials>, Error> {
        for path in &self.read {
            let Some(file) = File::read(path)? else {
                continue;
            };
            let key = key(registry);
            let program = file.helper(&key).or_else(|| file.helper(registry));
            if let Some(program) = program
                && let Some(found) = helper::get(&program, &key, path)?
            {
                return Ok(Some(found));
            }
            let mut keys = keys(registry, repository).into_iter();
            if let Some(found) = keys.find_map(|key| file.get(&key)) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What to show to some repositories, each by the name of its registry and its own.
    pub fn look_up<'a>(&self, all: impl IntoIterator<Item = (&'a str, &'a str)>) -> Shown {
        let one = |(registry, repository): (&str, &str)| One {
            registry: registry.into(),
            repository: repository.into(),
            found: self.find(registry, repository).map_err(Arc::new),
        };
        Shown(all.into_iter().map(one).collect())
    }

    /// Keeps a registry's, in the place of what was kept; tells where.
    ///
    /// # Errors
    /// When it cannot be written, or a helper does not keep it.
    pub fn keep(&self, registry: &str, user: &str, password: &str) -> Result<PathBuf, Error> {
        let path = self.written.clone().ok_or(Error::Home)?;
        let key = key(registry);
        let mut file = File::read(&path)?.unwrap_or_default();
        match file.helper(&key) {
            Some(program) => {
                helper::store(&program, &key, user, password, &path)?;
                file.note(&key);
            }
            None => file.put(&key, user, password),
        }
        file.write(&path)?;
        Ok(path)
    }

    /// Forgets a registry's in all files; tells whether there was anything.
    ///
    /// # Errors
    /// When it cannot be written, or a helper does not forget it.
    pub fn forget(&self, registry: &str) -> Result<bool, Error> {
        let mut any = false;
        for path in &self.read {
            let Some(mut file) = File::read(path)? else {
                continue;
            };
            if let Some(program) = file.helper(&key(registry)) {
                any |= helper::erase(&program, &key(registry), path)?;
            }
            let mut changed = false;
            for key in keys(registry, "") {
                changed |= file.remove(&key);
            }
            if changed {
                file.write(path)?;
            }
            any |= changed;
        }
        Ok(any)
    }
}

/// What docker calls a registry in its files.
fn key(registry: &str) -> String {
    match registry {
        "docker.io" => DOCKER_HUB.into(),
        other => other.into(),
    }
}

/// All names that a registry's may be kept under: podman's may be for a part of a registry, the longest first.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut part = repository;
    while !part.is_empty() {
        names.push(format!("{registry}/{part}"));
        part = part.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    names.push(key(registry));
    let mut all = vec![registry.to_owned()];
    if registry == "docker.io" {
        all.extend(["index.docker.io", "registry-1.docker.io"].map(Into::into));
    }
    for name in all {
        let urls =
            ["", "/v1/", "/v2/", "/v1", "/v2", "/"].map(|end| format!("https://{name}{end}"));
        names.push(name.clone());
        names.extend(urls);
        names.push(format!("http://{name}"));
    }
    names.dedup();
    names
}

#[cfg(test)]
mod tests;
