//! What an image says of how it is run, checked once: whatever comes out of here can be told to a guest.

mod ports;
mod written;

pub use ports::{ExposedPorts, Protocol};

use crate::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use written::{Check, Written};

/// The longest configuration; those of real images have some kilobytes, most of it history.
pub const MAX_LENGTH: usize = 4 << 20;

/// An image's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageConfig {
    /// What it runs on.
    pub platform: Platform,
    /// Its layers, the lowest first, each by the digest of its archive before it was compressed.
    pub layers: Vec<Digest>,
    /// What is run, and what stands in front of arguments that a user gives.
    pub entrypoint: Vec<String>,
    /// Arguments, or all that is run where there is no entry point; a user's words replace it.
    pub command: Vec<String>,
    /// Variables by name, in their order; the last of a name counts.
    pub environment: Vec<(String, String)>,
    /// Where it is run: an absolute path.
    pub working_directory: String,
    /// Who runs it.
    pub user: User,
    /// What asks it to end, as it is written: `SIGQUIT`, `3`.
    pub stop_signal: Option<String>,
    /// How to see whether it is well.
    pub health: Option<Health>,
    /// Ports that it listens on, each of them once, in the order of protocols and numbers.
    pub ports: Vec<ExposedPorts>,
    /// Directories that are to outlive it: absolute paths.
    pub volumes: BTreeSet<String>,
    /// What its maker says of it.
    pub labels: BTreeMap<String, String>,
}

/// Operating system and processor, as Go calls them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v8`; often empty.
    pub variant: String,
}

/// Who runs an image's command. Names are looked up in the image's own files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The user, root where there is none.
    pub user: Option<Account>,
    /// The group; the user's where there is none.
    pub group: Option<Account>,
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// By number, which needs no entry in any file.
    Id(u32),
    /// By name.
    Name(String),
}

/// Docker's `HEALTHCHECK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// None, even if an image below had one.
    Disabled,
    /// A test, with what is not docker's default.
    Test {
        /// What is run.
        test: Test,
        /// Between two of them.
        interval: Option<Duration>,
        /// For how long it may take.
        timeout: Option<Duration>,
        /// For how long failures do not count.
        start_period: Option<Duration>,
        /// Between two of them in that time.
        start_interval: Option<Duration>,
        /// Failures in a row that make a service unhealthy.
        retries: Option<u32>,
    },
}

/// What a health check runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// A program with its arguments.
    Command(Vec<String>),
    /// What the image's shell reads.
    Shell(String),
}

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Longer than any is.
    #[error("an image's configuration of {0} bytes, more than {MAX_LENGTH}")]
    Long(usize),
    /// Not JSON, or of another shape.
    #[error("not an image's configuration")]
    Json(#[from] serde_json::Error),
    /// A value makes no sense.
    #[error("{what} of an image's configuration: `{}`", .value.escape_debug())]
    Value {
        /// Which one.
        what: &'static str,
        /// As it is written.
        value: String,
    },
}

fn wrong(what: &'static str, value: &str) -> Error {
    let value = value.chars().take(200).collect();
    Error::Value { what, value }
}

impl ImageConfig {
    /// Reads one.
    ///
    /// # Errors
    /// Which value cannot be.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        if json.len() > MAX_LENGTH {
            return Err(Error::Long(json.len()));
        }
        let Written {
            architecture,
            os,
            variant,
            config,
            rootfs,
        } = serde_json::from_slice(json)?;
        let digests = rootfs.diff_ids.iter();
        let layers = digests.map(|text| Digest::parse(text).ok_or_else(|| wrong("a layer", text)));
        let ports = config
            .exposed_ports
            .keys()
            .map(|text| ExposedPorts::parse(text).ok_or_else(|| wrong("an exposed port", text)));
        let volumes = config.volumes.into_keys();
        let volumes = volumes.map(|path| absolute("a volume", &path));
        let signal = Some(config.stop_signal).filter(|signal| !signal.is_empty());
        Ok(Self {
            platform: Platform {
                os,
                architecture,
                variant,
            },
            layers: layers.collect::<Result<_, _>>()?,
            entrypoint: words("the entry point", config.entrypoint.into())?,
            command: words("the command", config.cmd.into())?,
            environment: environment(config.env)?,
            working_directory: absolute("the working directory", &config.working_dir)?,
            user: User::parse(&config.user).ok_or_else(|| wrong("the user", &config.user))?,
            stop_signal: signal
                .map(|signal| text("the stop signal", signal))
                .transpose()?,
            health: health(config.healthcheck)?,
            ports: ExposedPorts::merge(ports.collect::<Result<_, _>>()?),
            volumes: volumes.collect::<Result<_, _>>()?,
            labels: config.labels,
        })
    }
}

/// What an argument or a variable can be: anything without NUL.
fn text(what: &'static str, text: String) -> Result<String, Error> {
    match text.contains('\0') {
        true => Err(wrong(what, &text)),
        false => Ok(text),
    }
}

fn words(what: &'static str, words: Vec<String>) -> Result<Vec<String>, Error> {
    words.into_iter().map(|word| text(what, word)).collect()
}

fn environment(variables: Vec<String>) -> Result<Vec<(String, String)>, Error> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut places = BTreeMap::new();
    for variable in words("a variable", variables)? {
        let Some((name, value)) = variable
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
        else {
            return Err(wrong("a variable", &variable));
        };
        let place = *places.entry(name.to_owned()).or_insert(all.len());
        match all.get_mut(place) {
            Some(there) => there.1 = value.into(),
            None => all.push((name.into(), value.into())),
        }
    }
    Ok(all)
}

/// A path from the root on; nothing is the root, and what is relative begins there. `..` does not leave it.
fn absolute(what: &'static str, path: &str) -> Result<String, Error> {
    let path = text(what, path.into())?;
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    Ok(format!("/{}", names.join("/")))
}

impl User {
    /// `USER`, `USER:GROUP` or `:GROUP`, each a name or a number.
    fn parse(text: &str) -> Option<Self> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, group),
            None => (text, ""),
        };
        let account = |text: &str| -> Option<Option<Account>> {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            match text {
                "" => Some(None),
                // The last one means "no change" to setuid(2) and its like.
                _ if is_number => {
                    let id = text.parse().ok().filter(|id| *id != u32::MAX)?;
                    Some(Some(Account::Id(id)))
                }
                _ if text.contains([':', '\0', '\n', '/']) => None,
                _ => Some(Some(Account::Name(text.into()))),
            }
        };
        Some(Self {
            user: account(user)?,
            group: account(group)?,
        })
    }
}

fn health(check: Check) -> Result<Option<Health>, Error> {
    const WHAT: &str = "the health check";
    let mut test = words(WHAT, check.test)?;
    if test.is_empty() {
        return Ok(None);
    }
    let kind = test.remove(0);
    let test = match (&*kind, &mut test[..]) {
        ("NONE", _) => return Ok(Some(Health::Disabled)),
        ("CMD", [_, ..]) => Test::Command(test),
        ("CMD-SHELL", [line]) => Test::Shell(std::mem::take(line)),
        _ => return Err(wrong(WHAT, &kind)),
    };
    // Zero is docker's default.
    let time = |nanoseconds: i64| match u64::try_from(nanoseconds) {
        Ok(0) => Ok(None),
        Ok(nanoseconds) => Ok(Some(Duration::from_nanos(nanoseconds))),
        Err(_) => Err(wrong(WHAT, &nanoseconds.to_string())),
    };
    let retries = u32::try_from(check.retries);
    let retries = retries.map_err(|_| wrong(WHAT, &check.retries.to_string()))?;
    Ok(Some(Health::Test {
        test,
        interval: time(check.interval)?,
        timeout: time(check.timeout)?,
        start_period: time(check.start_period)?,
        start_interval: time(check.start_interval)?,
        retries: Some(retries).filter(|retries| *retries > 0),
    }))
}

#[cfg(test)]
mod tests;
