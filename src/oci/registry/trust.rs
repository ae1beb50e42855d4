//! Whom a connection is trusted with: the host's certificates, and those that are laid down for one registry.

use super::Error;
use kvmlet_sys::{environment, regular};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Where certificates for registries are, each in a directory of the registry's name: `/etc/kvmlet/certs.d/HOST/ca.crt`,
/// and where docker and podman have them.
fn places() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = ["kvmlet", "docker", "containers"]
        .map(|owner| Path::new("/etc").join(owner).join("certs.d"))
        .into();
    let home = environment::home();
    let config = environment::variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| home.map(|home| home.join(".config")));
    if let Some(config) = config {
        let owners = ["kvmlet", "docker", "containers"];
        places.extend(owners.map(|owner| config.join(owner).join("certs.d")));
    }
    places
}

/// The certificates that are laid down for a registry.
fn of_registry(registry: &str) -> Result<Vec<Certificate<'static>>, String> {
    let mut all = Vec::new();
    for place in places() {
        let Ok(found) = fs::read_dir(place.join(registry)) else {
            continue;
        };
        for path in found.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
            if path.extension().is_some_and(|extension| extension == "crt") {
                all.extend(read(&path)?);
            }
        }
    }
    Ok(all)
}

/// All of a file; or its path, if it is not such a file.
fn read(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let wrong = || path.display().to_string();
    let mut text = Vec::new();
    let read = regular::open(path).and_then(|mut file| file.read_to_end(&mut text));
    read.map_err(|_| wrong())?;
    let items: Result<Vec<_>, _> = parse_pem(&text).collect();
    let certificates = items
        .map_err(|_| wrong())?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        });
    let certificates: Vec<_> = certificates.collect();
    match certificates.is_empty() {
        true => Err(wrong()),
        false => Ok(certificates),
    }
}

/// Whom connections to some registries are trusted with: looked up before anybody is talked to.
#[derive(Clone, Debug, Default)]
pub struct Trust(Vec<One>);

/// That of one registry.
#[derive(Clone, Debug)]
struct One {
    registry: String,
    /// The certificates that are laid down for it; or the file that is none.
    own: Result<Vec<Certificate<'static>>, String>,
    /// Those of the host.
    of_host: Vec<Certificate<'static>>,
}

impl Trust {
    /// As this host and this user have it.
    pub fn look_up<'a>(registries: impl IntoIterator<Item = &'a str>) -> Self {
        let of_host = rustls_native_certs::load_native_certs().certs;
        let of_host = of_host
            .iter()
            .map(|der| Certificate::from_der(der).to_owned());
        let of_host: Vec<_> = of_host.collect();
        let one = |registry: &str| One {
            registry: registry.into(),
            own: of_registry(registry),
            of_host: of_host.clone(),
        };
        Self(registries.into_iter().map(one).collect())
    }

    /// How connections to a registry are made safe, and whether certificates are laid down for it.
    pub(super) fn of(&self, registry: &str) -> Result<(TlsConfig, bool), Error> {
        let mut all = Vec::new();
        let mut has_own = false;
        if let Some(one) = self.0.iter().find(|one| one.registry == registry) {
            let own = one.own.as_ref();
            let own = own.map_err(|path| Error::Certificate { path: path.clone() })?;
            has_own = !own.is_empty();
            all.extend(own.iter().chain(&one.of_host).cloned());
        }
        let roots = match all.is_empty() {
            // A host without any: those of Mozilla's as this program was built.
            true => RootCerts::WebPki,
            false => RootCerts::new_with_certs(&all),
        };
        Ok((TlsConfig::builder().root_certs(roots).build(), has_own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn what_is_no_file_of_certificates_is_named_and_not_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("ca.crt");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        for path in [&path, place.path(), Path::new("/dev/zero")] {
            assert_eq!(read(path).unwrap_err(), path.display().to_string());
        }
    }
}
