//! Why a registry does not do what it is asked for.

use crate::credentials;
use kvmlet_image::Digest;
use kvmlet_spec::{Advice, Remedy};
use serde::Deserialize;
use std::io;
use std::sync::Arc;

/// An error in talking to a registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be reached, or does not speak as it should.
    #[error("cannot talk to the registry `{registry}`")]
    Unreachable {
        /// Which one.
        registry: String,
        /// What the connection said.
        #[source]
        source: Box<ureq::Error>,
    },
    /// It wants to know who asks, or does not let this user.
    #[error("the registry `{registry}` does not give this user `{what}`{said}")]
    Denied {
        /// Which one.
        registry: String,
        /// What was asked for.
        what: String,
        /// Its own words, with a colon in front.
        said: String,
        /// Whether a password was shown.
        known: bool,
    },
    /// There is no such thing.
    #[error("there is no `{what}` in the registry `{registry}`{said}")]
    Missing {
        /// Which one.
        registry: String,
        /// What was asked for.
        what: String,
        /// Its own words, with a colon in front.
        said: String,
    },
    /// It answers with an error.
    #[error("the registry `{registry}` answers {status} for `{what}`{said}")]
    Status {
        /// Which one.
        registry: String,
        /// What was asked for.
        what: String,
        /// HTTP's number.
        status: u16,
        /// Its own words, with a colon in front.
        said: String,
    },
    /// It leads to a place that does not give what it should.
    #[error(
        "the registry `{registry}` leads for `{what}` to `{place}`, which answers {status}{said}"
    )]
    Elsewhere {
        /// Which one.
        registry: String,
        /// What was asked for.
        what: String,
        /// Protocol, host and port.
        place: String,
        /// HTTP's number.
        status: u16,
        /// That place's own words, with a colon in front.
        said: String,
    },
    /// It answers with something that cannot be.
    #[error("the registry `{registry}` answers for `{what}` with {why}")]
    Answer {
        /// Which one.
        registry: String,
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// What came is not what its digest says.
    #[error(
        "`{what}` of the registry `{registry}` is not what it should be: its digest is {found}, not {expected}"
    )]
    Digest {
        /// Which one.
        registry: String,
        /// What was asked for.
        what: String,
        /// What was asked for, exactly.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// What came breaks off, again and again.
    #[error("`{what}` breaks off after {at} of {size} bytes, again and again")]
    Broken {
        /// What was asked for.
        what: String,
        /// How much came, in bytes.
        at: u64,
        /// How much there is, in bytes.
        size: u64,
        /// What the connection said last.
        #[source]
        source: io::Error,
    },
    /// Next to nothing comes.
    #[error(
        "`{what}` comes too slowly from the registry `{registry}`: less than 1000 bytes in a second, for a minute"
    )]
    Slow {
        /// Which one.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// It has neither a search nor a list of its repositories.
    #[error("the registry `{registry}` tells nobody which images it has")]
    NoSearch {
        /// Which one.
        registry: String,
    },
    /// Passwords cannot be looked up.
    #[error(transparent)]
    Credentials(#[from] Arc<credentials::Error>),
    /// Certificates for a registry cannot be read.
    #[error("`{path}` is not a certificate in PEM form")]
    Certificate {
        /// The file.
        path: String,
    },
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        let help = match self {
            Self::Denied {
                registry, known, ..
            } => Some(match known {
                false => format!(
                    "the name may be wrong, or it wants a password: `kvmlet login {registry}`"
                ),
                true => format!(
                    "the name may be wrong, or this user may not; `kvmlet login {registry}` changes who asks"
                ),
            }),
            Self::Missing { .. } => Some("look at the name and the tag".into()),
            Self::Status { status: 429, .. } => {
                Some("it gives no more for now: wait, or log in with `kvmlet login`".into())
            }
            Self::Unreachable { registry, source } => unreachable_help(registry, source),
            Self::Digest { .. } => {
                Some("try again; something on the way changes what comes".into())
            }
            Self::NoSearch { registry } => Some(format!(
                "an image of it is pulled by its whole name: `kvmlet pull {registry}/NAME`; its pages on the web may have a search"
            )),
            Self::Credentials(error) => return error.remedy(),
            _ => None,
        };
        help.map(Advice::from)
    }
}

impl Error {
    /// Whether the same may well be answered otherwise in a moment.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => !is_certain(source),
            _ => false,
        }
    }

    /// Whether who was asked does not speak that protocol: it hangs up, or what it says is of no form.
    pub(super) fn is_of_another_protocol(&self) -> bool {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
        let Self::Unreachable { source, .. } = self else {
            return false;
        };
        let hangs_up = [
            ConnectionAborted,
            ConnectionRefused,
            ConnectionReset,
            UnexpectedEof,
        ];
        match &**source {
            ureq::Error::Io(error) if hangs_up.contains(&error.kind()) => true,
            other => other.to_string().contains("corrupt message"),
        }
    }
}

/// Whether an answer with this status may well be another one in a moment.
pub(super) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// What a registry says is wrong, with a colon in front: one line, whatever it is.
pub(super) fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        errors: Vec<One>,
        #[serde(default)]
        details: Option<String>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        message: String,
        #[serde(default)]
        code: String,
    }
    let Ok(said) = serde_json::from_slice::<Said>(body) else {
        return String::new();
    };
    let first = said.errors.into_iter().next();
    let text = first.map(|one| match one.message.is_empty() {
        true => one.code,
        false => one.message,
    });
    let text = text.or(said.details).filter(|text| !text.is_empty());
    let blank = |c: char| if c.is_control() { ' ' } else { c };
    let short = |text: String| text.chars().take(300).map(blank).collect::<String>();
    text.map(|text| format!(": {}", short(text)))
        .unwrap_or_default()
}

/// Whether a connection that failed would fail again.
fn is_certain(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused || is_tls(error),
        ureq::Error::ConnectionFailed | ureq::Error::Timeout(_) => false,
        _ => true,
    }
}

/// rustls tells its errors as those of reading.
pub(super) fn is_tls(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData || error.to_string().contains("certificate")
}

fn unreachable_help(registry: &str, source: &ureq::Error) -> Option<String> {
    let text = source.to_string();
    if text.contains("certificate") || text.contains("UnknownIssuer") {
        return Some(format!(
            "if it has a certificate of your own making, put that of its authority in /etc/kvmlet/certs.d/{registry}/ca.crt"
        ));
    }
    match source {
        ureq::Error::HostNotFound => Some("look at the name, or at the host's name servers".into()),
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => {
            Some("a registry without TLS is to be named as such (`--plain-http`)".into())
        }
        ureq::Error::Io(error) if is_tls(error) => {
            Some("a registry without TLS is to be named as such (`--plain-http`)".into())
        }
        ureq::Error::Io(_) | ureq::Error::ConnectionFailed | ureq::Error::Timeout(_) => {
            Some(format!(
                "look whether it is up and this host reaches it: `curl -sSI https://{registry}/v2/`"
            ))
        }
        _ => None,
    }
}
