//! What images are called, by docker's rules: `nginx`, `nginx:1.27`, `registry.example:5000/team/app@sha256:…`.

use crate::Digest;
use std::fmt;

/// The registry of names without one.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// What docker's own registry has its official images in.
const OFFICIAL: &str = "library/";
/// The tag of names without one.
const DEFAULT_TAG: &str = "latest";
/// The longest name, its registry among it, without tag and digest.
const MAX_NAME: usize = 255;
/// The longest tag.
const MAX_TAG: usize = 128;

/// What an image is called. It has a tag or a digest, or both, of which the digest counts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why no image is called so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not the name of an image: {why}", .text.escape_debug())]
pub struct Error {
    /// What was asked for.
    pub text: String,
    /// What is wrong with it.
    pub why: Wrong,
}

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Wrong {
    /// There is none.
    #[error("it is empty")]
    Empty,
    /// The registry cannot be a host.
    #[error("its registry is not a host's name with or without a port")]
    Registry,
    /// Docker takes only lower case.
    #[error("it is written in lower case")]
    UpperCase,
    /// A character that no repository has, or in the wrong place.
    #[error("its parts are letters and digits, with `.`, `_`, `__` or `-` between them")]
    Repository,
    /// Longer than any.
    #[error("it has more than {MAX_NAME} bytes")]
    Long,
    /// Not a tag.
    #[error(
        "its tag is not 1 to {MAX_TAG} letters, digits, `_`, `.` or `-`, beginning with none of the last two"
    )]
    Tag,
    /// Not a digest.
    #[error("its digest is not `sha256:` and 64 hexadecimal digits in lower case")]
    Digest,
    /// It would be taken for an image's id.
    #[error("64 hexadecimal digits are an image's id")]
    Id,
}

impl Reference {
    /// Reads a name; one with neither tag nor digest gets the tag `latest`, one without a registry docker's.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|why| Error {
            text: text.chars().take(MAX_NAME + MAX_TAG).collect(),
            why,
        })
    }

    /// The registry as it is written, with the port if there is one: `docker.io`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in its registry: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository's manifest of this digest, without a tag.
    pub fn at_digest(&self, digest: Digest) -> Self {
        Self {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag: None,
            digest: Some(digest),
        }
    }

    /// The registry and the repository as docker shows them: `nginx`, `quay.io/team/app`.
    pub fn familiar_name(&self) -> String {
        match self.registry == DEFAULT_REGISTRY {
            true => {
                let official = self.repository.strip_prefix(OFFICIAL);
                let short = official.filter(|name| !name.contains('/'));
                short.unwrap_or(&self.repository).into()
            }
            false => format!("{}/{}", self.registry, self.repository),
        }
    }

    /// All of it: `docker.io/library/nginx:latest`.
    pub fn canonical(&self) -> String {
        format!("{}/{}{}", self.registry, self.repository, self.end())
    }

    /// Tag and digest, with what stands in front of them.
    fn end(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}"));
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}"));
        tag.unwrap_or_default() + &digest.unwrap_or_default()
    }
}

/// As docker shows it: `nginx:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.familiar_name(), self.end())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

impl std::str::FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

fn parse(text: &str) -> Result<Reference, Wrong> {
    if text.is_empty() {
        return Err(Wrong::Empty);
    }
    if Digest::from_hex(text).is_some() {
        return Err(Wrong::Id);
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(Digest::parse(digest).ok_or(Wrong::Digest)?)),
        None => (text, None),
    };
    // A colon before a slash is a port's.
    let from = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[from..].split_once(':') {
        Some((last, tag)) => (&rest[..from + last.len()], Some(tag)),
        None => (rest, None),
    };
    let (registry, repository) = split_registry(name);
    if !is_registry(registry) {
        return Err(Wrong::Registry);
    }
    check_repository(repository)?;
    let is_official = registry == DEFAULT_REGISTRY && !repository.contains('/');
    let repository = format!("{}{repository}", if is_official { OFFICIAL } else { "" });
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err(Wrong::Long);
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(Wrong::Tag);
    }
    let default = digest.is_none().then_some(DEFAULT_TAG);
    Ok(Reference {
        registry: registry.into(),
        repository,
        tag: tag.or(default).map(Into::into),
        digest,
    })
}

/// What stands before the first slash is a registry if it looks like a host.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest)) => {
            let is_host = first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase());
            match (is_host, first) {
                (true, "index.docker.io") => (DEFAULT_REGISTRY, rest),
                (true, _) => (first, rest),
                (false, _) => (DEFAULT_REGISTRY, name),
            }
        }
        None => (DEFAULT_REGISTRY, name),
    }
}

fn is_registry(text: &str) -> bool {
    let is_port = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number && text.parse::<u16>().is_ok_and(|port| port > 0)
    };
    // An address of IPv6 stands in brackets.
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|it| it.split_once(']')) {
        let is_address = address.parse::<std::net::Ipv6Addr>().is_ok();
        return is_address && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        let fits = label
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || it == b'-');
        fits && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

fn check_repository(text: &str) -> Result<(), Wrong> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(Wrong::UpperCase);
    }
    match text.split('/').all(is_part) {
        true => Ok(()),
        false => Err(Wrong::Repository),
    }
}

/// Letters and digits; between them one of `.` and `_`, two of `_`, or any number of `-`.
fn is_part(part: &str) -> bool {
    let is_word = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends =
        bytes.first().is_some_and(|it| is_word(*it)) && bytes.last().is_some_and(|it| is_word(*it));
    let mut between = bytes.split(|it| is_word(*it));
    ends && between.all(|signs| {
        matches!(signs, b"" | b"." | b"_" | b"__") || signs.iter().all(|it| *it == b'-')
    })
}

fn is_tag(tag: &str) -> bool {
    let fits = tag
        .bytes()
        .all(|it| it.is_ascii_alphanumeric() || b"_.-".contains(&it));
    fits && (1..=MAX_TAG).contains(&tag.len()) && !tag.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests;
