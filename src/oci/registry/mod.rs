//! A registry, as a client sees it (OCI's distribution specification 1.1), in requests that wait for their answer.

mod access;
mod blob;
mod challenge;
mod error;
mod exchange;
mod identity;
mod search;
mod token;
mod trust;
mod upload;

pub use access::Access;
pub use blob::Blob;
pub use error::Error;
pub use search::Hit;
pub use trust::Trust;

use crate::credentials::Shown;
use challenge::Challenge;
use exchange::Ask;
use kvmlet_image::Digest;
use kvmlet_image::manifest::{self, Descriptor, media_type};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

/// Between attempts at what fails in passing.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
];
/// The longest error that is read.
const MAX_ERROR: usize = 64 << 10;

/// How to get to a registry.
#[derive(Clone, Debug)]
pub struct Options {
    /// Without TLS.
    pub plain_http: bool,
    /// Without TLS, if it does not answer with it.
    pub is_insecure: bool,
    /// What it may be shown.
    pub shown: Shown,
    /// Whom it is trusted with.
    pub trust: Trust,
}

/// A registry that has answered.
#[derive(Debug)]
pub struct Registry {
    name: String,
    /// Protocol and host.
    base: String,
    agent: Agent,
    shown: Shown,
    /// What it wants to be shown.
    challenge: Mutex<Option<Challenge>>,
    /// By what they are good for.
    tokens: Mutex<HashMap<String, String>>,
}

/// A manifest or an index as it came.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Of `bytes`.
    pub digest: Digest,
    /// What the registry calls it.
    pub media_type: String,
}

/// What is asked for where a name may be that of an image or of one for each platform.
const MANIFESTS: [&str; 4] = [
    media_type::INDEX,
    media_type::DOCKER_INDEX,
    media_type::MANIFEST,
    media_type::DOCKER_MANIFEST,
];

impl Registry {
    /// Looks whether a registry is there, and what it wants to be shown. One at this host is asked without TLS first,
    /// as docker does, unless certificates are laid down for it.
    ///
    /// # Errors
    /// When it is not there, or is something else.
    pub fn connect(name: &str, options: &Options) -> Result<Self, Error> {
        let (tls, has_own) = options.trust.of(name)?;
        let agent = exchange::agent(tls);
        let host = match name {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let protocols: &[&str] = match (options.plain_http, is_loopback(host) && !has_own) {
            (true, _) => &["http"],
            (_, true) => &["http", "https"],
            _ if options.is_insecure => &["https", "http"],
            _ => &["https"],
        };
        let mut why = None;
        for protocol in protocols {
            let registry = Self {
                name: name.into(),
                base: format!("{protocol}://{host}"),
                agent: agent.clone(),
                shown: options.shown.clone(),
                challenge: Mutex::default(),
                tokens: Mutex::default(),
            };
            match registry.greet() {
                Ok(()) => return Ok(registry),
                // What was wrong in the protocol that it speaks says more.
                Err(error) if why.is_some() && error.is_of_another_protocol() => {}
                Err(error) => why = Some(error),
            }
        }
        Err(why.unwrap_or_else(|| Error::Answer {
            registry: name.into(),
            what: "/v2/".into(),
            why: "nothing".into(),
        }))
    }

    /// What it is called in the names of images.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn greet(&self) -> Result<(), Error> {
        let ask = Ask::get(format!("{}/v2/", self.base));
        let answer = self.patient(|| ask.send(&self.agent, None))?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => self.heed(answer, "/v2/")?,
            status if status.is_success() => {}
            status => {
                let why = format!("{status}: it is not a registry");
                return Err(self.wrong("/v2/", why));
            }
        }
        Ok(())
    }

    /// A manifest or an index by its tag or digest.
    ///
    /// # Errors
    /// When there is none, it is none, or not what its digest says.
    pub fn manifest(
        &self,
        access: &Access,
        which: &str,
        expected: Option<Digest>,
    ) -> Result<Fetched, Error> {
        let repository = access.repository();
        let separator = if which.contains(':') { '@' } else { ':' };
        let what = format!("{repository}{separator}{which}");
        let ask = Ask::get(format!("{}/v2/{repository}/manifests/{which}", self.base));
        let ask = ask.header(header::ACCEPT, MANIFESTS.join(", "));
        let answer = self.ask(&ask, access, &what)?;
        if !answer.status().is_success() {
            return Err(self.status(answer, &what, self.knows(access)?));
        }
        let media_type = exchange::text(answer.headers(), &header::CONTENT_TYPE);
        let limit = manifest::MAX_LENGTH as usize;
        let bytes = exchange::read(answer, limit).map_err(|error| {
            let why = match error.kind() {
                std::io::ErrorKind::FileTooLarge => {
                    format!("a manifest of more than {limit} bytes")
                }
                _ => format!("something that cannot be read: {error}"),
            };
            self.wrong(&what, why)
        })?;
        let found = Digest::of(&bytes);
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(Error::Digest {
                registry: self.name.clone(),
                what,
                expected,
                found,
            });
        }
        Ok(Fetched {
            bytes,
            digest: found,
            media_type: media_type.unwrap_or_default(),
        })
    }

    /// Something by its digest, to be read once; nothing is asked for yet.
    pub fn blob<'a>(&'a self, access: &'a Access, descriptor: &Descriptor) -> Blob<'a> {
        Blob::new(self, access, descriptor.clone())
    }

    /// Sends a request until it is answered, with what is to be shown.
    fn ask(&self, ask: &Ask<'_>, access: &Access, what: &str) -> Result<Response<Body>, Error> {
        let mut again = true;
        loop {
            let authorization = self.authorization(access, what)?;
            let answer = self.patient(|| ask.send(&self.agent, authorization.as_deref()))?;
            if answer.status() != StatusCode::UNAUTHORIZED || !again {
                return Ok(answer);
            }
            // A token has run out, or it wants another one for this.
            again = false;
            self.heed(answer, what)?;
            lock(&self.tokens).remove(&access.key());
        }
    }

    /// Tries again what fails in passing.
    fn patient(
        &self,
        attempt: impl Fn() -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, Error> {
        let since = Instant::now();
        let mut pauses = PAUSES.into_iter();
        loop {
            let result = attempt().map_err(|source| Error::Unreachable {
                registry: self.name.clone(),
                source: Box::new(source),
            });
            let passing = match &result {
                Ok(answer) => error::is_passing(answer.status().as_u16()),
                Err(error) => error.is_passing(),
            };
            let passing = passing && since.elapsed() < exchange::ANSWERING;
            match pauses.next().filter(|_| passing) {
                Some(pause) => {
                    log::info!("{} does not answer; once more in {pause:?}", self.name);
                    std::thread::sleep(pause);
                }
                None => return result,
            }
        }
    }

    fn wrong(&self, what: &str, why: impl Into<String>) -> Error {
        Error::Answer {
            registry: self.name.clone(),
            what: what.into(),
            why: why.into(),
        }
    }

    /// The error that an answer is.
    fn status(&self, answer: Response<Body>, what: &str, known: bool) -> Error {
        let status = answer.status();
        let elsewhere = (!exchange::is_of(&answer, &self.base)).then(|| exchange::place(&answer));
        let body = exchange::read(answer, MAX_ERROR).unwrap_or_default();
        match elsewhere {
            // A registry may have its things elsewhere; what is missing there is missing.
            Some(place) if status != StatusCode::NOT_FOUND => Error::Elsewhere {
                registry: self.name.clone(),
                what: what.into(),
                place,
                status: status.as_u16(),
                said: error::said(&body),
            },
            _ => self.said(status, &body, what, known),
        }
    }

    fn said(&self, status: StatusCode, body: &[u8], what: &str, known: bool) -> Error {
        let (registry, what) = (self.name.clone(), what.to_owned());
        let said = error::said(body);
        match status.as_u16() {
            401 | 403 => Error::Denied {
                registry,
                what,
                said,
                known,
            },
            404 => Error::Missing {
                registry,
                what,
                said,
            },
            status => Error::Status {
                registry,
                what,
                status,
                said,
            },
        }
    }
}

/// Is it this host, by a name or an address that no other host has?
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let is_address = |name: &str| name.parse().is_ok_and(|it: Ipv4Addr| it.is_loopback());
    name == "localhost" || name == "[::1]" || is_address(name)
}

/// Nothing panics while it holds one of these.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_few_names() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.evil",
            "127.0.0.1.evil:80",
            "128.0.0.1",
            "registry",
            "::1.evil",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
