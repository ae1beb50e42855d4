//! Where images of a registry come from: as administrators say in podman's `registries.conf`.

mod written;

use crate::bounded;
use kvmlet_image::reference::Reference;
use kvmlet_spec::{Advice, Remedy};
use kvmlet_sys::{environment, regular};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use written::{Registry, Written};

/// The longest file that is read.
const MAX_LENGTH: u64 = 4 << 20;
const NAME: &str = "registries.conf";
const SYSTEM: &str = "/etc/containers";
/// In place of the main file.
const VARIABLE: &str = "CONTAINERS_REGISTRIES_CONF";

/// Why it is not known where an image comes from.
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
    /// A file is not what it should be.
    #[error("`{}` does not say which registries there are", .path.display())]
    Shape {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A place is none.
    #[error("`{}` does not name a registry, as it should in the settings of `{prefix}`", .location.escape_debug())]
    Location {
        /// What is named.
        location: String,
        /// For which names.
        prefix: String,
    },
    /// Nobody is to have images from there.
    #[error("images of `{0}` are blocked on this host")]
    Blocked(String),
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        let help = match self {
            Self::Blocked(_) | Self::Location { .. } => {
                "that is said in registries.conf (/etc/containers, ~/.config/containers)"
            }
            _ => return None,
        };
        Some(help.into())
    }
}

/// A place that has an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The host, with its port if there is one.
    pub registry: String,
    /// In that registry.
    pub repository: String,
    /// It may be asked without TLS where it has none.
    pub is_insecure: bool,
    /// It has the images of another one.
    pub is_mirror: bool,
}

/// What is said of registries.
#[derive(Clone, Debug, Default)]
pub struct Registries(Vec<Registry>);

impl Registries {
    /// As this host and this user have it: the main file, and what `registries.conf.d` says more, of which the last one
    /// about a prefix counts.
    ///
    /// # Errors
    /// When a file cannot be read, or is not what it should be.
    pub fn of_user() -> Result<Self, Error> {
        let config = environment::variable("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.or_else(|| environment::home().map(|home| home.join(".config")));
        let own = config.map(|config| config.join("containers"));
        let system = PathBuf::from(SYSTEM);
        let named = environment::variable(VARIABLE).map(PathBuf::from);
        let of_user = own.as_ref().map(|own| own.join(NAME));
        let main = named
            .or_else(|| of_user.filter(|path| path.exists()))
            .unwrap_or_else(|| system.join(NAME));
        let mut all = Self::default();
        all.add(&main)?;
        for around in [Some(system), own].into_iter().flatten() {
            for path in more(&around.join("registries.conf.d"))? {
                all.add(&path)?;
            }
        }
        Ok(all)
    }

    /// Adds what a file says, if it is there.
    fn add(&mut self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::Read {
            path: path.into(),
            source,
        };
        let file = match regular::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed)?,
        };
        let text = bounded::read(file, MAX_LENGTH).map_err(failed)?;
        let text = String::from_utf8(text);
        let text =
            text.map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        self.read(&text).map_err(|source| Error::Shape {
            path: path.into(),
            source: Box::new(source),
        })
    }

    fn read(&mut self, text: &str) -> Result<(), toml::de::Error> {
        let written: Written = toml::from_str(text)?;
        for mut registry in written.registry {
            if registry.prefix.is_empty() {
                registry.prefix.clone_from(&registry.location);
            }
            registry.prefix = registry.prefix.trim_end_matches('/').into();
            self.0.retain(|other| other.prefix != registry.prefix);
            self.0.push(registry);
        }
        Ok(())
    }

    /// The one that is about a name: the longest prefix, and how much of the name that is.
    fn about(&self, name: &str) -> Option<(&Registry, usize)> {
        let fitting = self.0.iter().filter_map(|registry| {
            let length = fits(&registry.prefix, name)?;
            Some((registry, length))
        });
        fitting.max_by_key(|(registry, _)| registry.prefix.len())
    }

    /// Where an image is asked for, one place after the other: mirrors, and then its own.
    ///
    /// # Errors
    /// When it is blocked, or a place is none.
    pub fn places(&self, reference: &Reference) -> Result<Vec<Place>, Error> {
        let own = |is_insecure| Place {
            registry: reference.registry().into(),
            repository: reference.repository().into(),
            is_insecure,
            is_mirror: false,
        };
        let name = reference.canonical();
        let Some((registry, length)) = self.about(&name) else {
            return Ok(vec![own(false)]);
        };
        if registry.blocked {
            return Err(Error::Blocked(registry.prefix.clone()));
        }
        let whole = format!("{}/{}", reference.registry(), reference.repository());
        let rest = whole.get(length..).unwrap_or_default();
        let has_digest = reference.digest().is_some();
        let mut places = Vec::new();
        for mirror in &registry.mirror {
            let wanted = match &*mirror.pull_from_mirror {
                "digest-only" => has_digest,
                "tag-only" => !has_digest,
                _ => has_digest || !registry.mirror_by_digest_only,
            };
            if wanted {
                places.push(Place {
                    is_mirror: true,
                    is_insecure: mirror.insecure,
                    ..place(&mirror.location, rest, &registry.prefix)?
                });
            }
        }
        places.push(match registry.location.is_empty() {
            true => own(registry.insecure),
            false => Place {
                is_insecure: registry.insecure,
                ..place(&registry.location, rest, &registry.prefix)?
            },
        });
        Ok(places)
    }
}

/// What a location is once the rest of a name is behind it.
fn place(location: &str, rest: &str, prefix: &str) -> Result<Place, Error> {
    let whole = format!("{}{rest}", location.trim_end_matches('/'));
    let wrong = || Error::Location {
        location: location.into(),
        prefix: prefix.into(),
    };
    let (registry, repository) = whole.split_once('/').ok_or_else(wrong)?;
    // Read as a name of that form, in which a host looks like one.
    let host = registry.split(':').next().unwrap_or_default();
    let trial = Reference::parse(&format!(
        "{registry}{}/{repository}",
        if registry == host { ":443" } else { "" }
    ));
    let trial = trial.map_err(|_| wrong())?;
    Ok(Place {
        registry: registry.into(),
        repository: trial.repository().into(),
        is_insecure: false,
        is_mirror: false,
    })
}

/// Whether a prefix is that of a name, and how long that is in it. `*.` stands for any part of a host's name.
fn fits(prefix: &str, name: &str) -> Option<usize> {
    if prefix.is_empty() {
        return None;
    }
    let length = match prefix.strip_prefix('*') {
        Some(end) if end.starts_with('.') => {
            let host = name.split('/').next()?;
            let host = host.split(':').next()?;
            let (of_host, path) = end
                .split_once('/')
                .map_or((end, None), |(a, b)| (a, Some(b)));
            if !host.ends_with(of_host) || host.len() == of_host.len() {
                return None;
            }
            match path {
                None => host.len(),
                Some(path) => {
                    let rest = name[host.len()..].strip_prefix('/')?;
                    rest.starts_with(path)
                        .then_some(host.len() + 1 + path.len())?
                }
            }
        }
        _ => name.starts_with(prefix).then_some(prefix.len())?,
    };
    // Behind it something else begins.
    matches!(name.as_bytes().get(length), None | Some(b'/' | b':' | b'@')).then_some(length)
}

/// The files of a directory that say more, in their order.
fn more(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let found = match fs::read_dir(directory) {
        Ok(found) => found,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(source) => {
            let path = directory.into();
            return Err(Error::Read { path, source });
        }
    };
    let paths = found.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|it| it == "conf"))
        .collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Registries {
        let mut all = Registries::default();
        all.read(text).unwrap();
        all
    }

    fn places(all: &Registries, name: &str) -> Vec<String> {
        let places = all.places(&Reference::parse(name).unwrap()).unwrap();
        let text = |it: Place| {
            let marks = [(it.is_mirror, "~"), (it.is_insecure, "!")];
            let marks: String = marks
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, mark)| *mark)
                .collect();
            format!("{marks}{}/{}", it.registry, it.repository)
        };
        places.into_iter().map(text).collect()
    }

    const TEXT: &str = r#"
        unqualified-search-registries = ["example.com"]
        short-name-mode = "enforcing"
        [[registry]]
        prefix = "docker.io"
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror:5000/hub"
        insecure = true
        unheard-of = 3
        [[registry.mirror]]
        location = "second.example/hub/"
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "docker.io/library/secret"
        blocked = true
        [[registry]]
        location = "old.example/team"
        insecure = true
        [[registry]]
        prefix = "*.corp.example"
        location = "proxy.example:8443/corp"
        mirror-by-digest-only = true
        mirror = [{ location = "near" }]
        [aliases]
        "x" = "quay.io/x"
    "#;

    #[test]
    fn places_are_those_of_the_longest_prefix() {
        let all = of(TEXT);
        let digest = format!("@sha256:{}", "0".repeat(64));
        for (name, expected) in [
            (
                "nginx",
                vec!["~!mirror:5000/hub/library/nginx", "docker.io/library/nginx"],
            ),
            (
                &*format!("nginx{digest}"),
                vec![
                    "~!mirror:5000/hub/library/nginx",
                    "~second.example/hub/library/nginx",
                    "docker.io/library/nginx",
                ],
            ),
            (
                "secrets",
                vec![
                    "~!mirror:5000/hub/library/secrets",
                    "docker.io/library/secrets",
                ],
            ),
            ("old.example/team/a:1", vec!["!old.example/team/a"]),
            ("old.example/team-b/a:1", vec!["old.example/team-b/a"]),
            ("old.example:80/team/a", vec!["old.example:80/team/a"]),
            ("a.corp.example/x", vec!["proxy.example:8443/corp/x"]),
            ("corp.example/x", vec!["corp.example/x"]),
            ("notcorp.example/x", vec!["notcorp.example/x"]),
            (
                &*format!("b.corp.example/x{digest}"),
                vec!["~near/x", "proxy.example:8443/corp/x"],
            ),
        ] {
            assert_eq!(places(&all, name), expected, "{name}");
        }
        let secret = Reference::parse("secret:1").unwrap();
        assert!(matches!(all.places(&secret), Err(Error::Blocked(_))));
    }

    #[test]
    fn the_last_one_about_a_prefix_counts() {
        let mut all = of("[[registry]]\nlocation=\"a.example\"\nblocked=true\n");
        all.read("[[registry]]\nprefix=\"a.example/\"\nlocation=\"b.example\"\n")
            .unwrap();
        assert_eq!(places(&all, "a.example/x"), ["b.example/x"]);
        // The form of old, which says nothing here.
        let old = of("[registries.search]\nregistries = [\"x\"]\n");
        assert_eq!(places(&old, "nginx"), ["docker.io/library/nginx"]);
    }

    #[test]
    fn a_place_that_is_none_is_told() {
        for location in ["", "http://x", "a b", "-", "x/UPPER", "/"] {
            let text = format!(
                "[[registry]]\nprefix=\"p.example\"\n[[registry.mirror]]\nlocation={location:?}\n"
            );
            let found = of(&text).places(&Reference::parse("p.example/x").unwrap());
            assert!(
                matches!(found, Err(Error::Location { .. })),
                "{location}: {found:?}"
            );
        }
        let mut all = Registries::default();
        assert!(all.read("[[registry]\n").is_err());
        assert!(all.read("registry = 3\n").is_err());
    }
}
