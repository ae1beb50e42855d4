//! The description of a process, as it travels: fields of a tag (u8), a length (u32), a value and a NUL byte, so that strings
//! can be handed to the kernel where they lie.

use core::ffi::CStr;
use core::fmt;

use super::fields::{Fields, signal};
use crate::ConsoleSize;

/// The longest description, in bytes.
pub const MAX_DESCRIPTION: usize = 1 << 20;

/// The most fields in a description: arguments, variables and all others.
pub const MAX_FIELDS: usize = 16 << 10;

/// The longest argument, or variable with its name and `=`, in bytes: the kernel's MAX_ARG_STRLEN without the NUL byte.
pub const MAX_STRING: usize = (128 << 10) - 1;

pub(super) const ARGUMENT: u8 = 1;
pub(super) const VARIABLE: u8 = 2;
pub(super) const WORKDIR: u8 = 3;
pub(super) const MADE_WORKDIR: u8 = 4;
pub(super) const USER: u8 = 5;
pub(super) const GROUP: u8 = 6;
pub(super) const HOSTNAME: u8 = 7;
pub(super) const MOUNT: u8 = 8;
pub(super) const STOP_SIGNAL: u8 = 9;
pub(super) const STOP_TIMEOUT: u8 = 10;
pub(super) const TERMINAL: u8 = 11;
pub(super) const INPUT: u8 = 12;
pub(super) const DETACHED: u8 = 13;
pub(super) const NETWORK: u8 = 14;
pub(super) const FILLED_MOUNT: u8 = 15;
pub(super) const HOST: u8 = 16;

/// Why a process cannot be described, or a description not be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DescriptionError {
    /// It has more than [`MAX_DESCRIPTION`] bytes.
    TooLong,
    /// It has more than [`MAX_FIELDS`] fields.
    TooManyFields,
    /// A string is longer than [`MAX_STRING`].
    LongString {
        /// What it is, such as "variable".
        what: &'static str,
        /// Counted from 1 among those that are the same.
        index: usize,
    },
    /// A string has a NUL byte in it.
    Nul {
        /// What it is.
        what: &'static str,
        /// Counted from 1 among those that are the same.
        index: usize,
    },
    /// A variable has no `=`, or no name.
    Variable {
        /// Counted from 1.
        index: usize,
    },
    /// A value is not one of its sort.
    Value {
        /// What it is.
        what: &'static str,
    },
    /// What can be there once is there twice.
    Repeated {
        /// What it is.
        what: &'static str,
    },
    /// It is cut short, or not a description.
    Malformed,
}

impl fmt::Display for DescriptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "more than {} KiB in all", MAX_DESCRIPTION >> 10),
            Self::TooManyFields => {
                write!(f, "more than {MAX_FIELDS} arguments and variables in all")
            }
            Self::LongString { what, index } => {
                write!(
                    f,
                    "{what} {index} is longer than {MAX_STRING} bytes, Linux's limit"
                )
            }
            Self::Nul { what, index } => write!(f, "{what} {index} has a NUL byte in it"),
            Self::Variable { index } => write!(f, "variable {index} is not NAME=VALUE"),
            Self::Value { what } => write!(f, "the {what} cannot be one"),
            Self::Repeated { what } => write!(f, "there is more than one {what}"),
            Self::Malformed => f.write_str("it is not a description"),
        }
    }
}

impl core::error::Error for DescriptionError {}

/// A mount that a service wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mount<'a> {
    /// As mount(2) has them.
    pub flags: u32,
    /// A device, a tag or, for a bind mount, a path. Behind [`SERIAL`] the serial number of a disk, wherever that appears.
    pub source: &'a CStr,
    /// Where, absolute. Directories that are missing are made.
    pub target: &'a CStr,
    /// The kernel's name of the file system.
    pub fstype: &'a CStr,
    /// The file system's own options.
    pub options: &'a CStr,
    /// What the image has at the target is copied into it, with owners and modes, if there is nothing in it yet.
    pub filled: bool,
}

/// What a [source](Mount::source) begins with that is a disk, found by the serial number that follows.
pub const SERIAL: &str = "serial:";

impl<'a> Mount<'a> {
    /// The serial number of the disk that is mounted, if it is found by that.
    pub fn serial(&self) -> Option<&'a [u8]> {
        self.source.to_bytes().strip_prefix(SERIAL.as_bytes())
    }
}

/// A description that was understood as a whole; strings lie where it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Description<'a> {
    fields: &'a [u8],
    /// How many arguments there are.
    pub arguments: usize,
    /// How many variables there are.
    pub variables: usize,
    /// Where to start; `/`, or what the image says.
    pub workdir: Option<&'a CStr>,
    /// The working directory is made if it is missing.
    pub make_workdir: bool,
    /// Whom to run as, `USER[:GROUP]` by names or numbers.
    pub user: Option<&'a str>,
    /// The machine's name.
    pub hostname: Option<&'a str>,
    /// The signal that asks the service to end.
    pub stop_signal: Option<u8>,
    /// How long it may take then, in milliseconds.
    pub stop_timeout_ms: Option<u32>,
    /// It has a terminal of this size.
    pub terminal: Option<ConsoleSize>,
    /// Its input comes from the host; without, there is none.
    pub input: bool,
    /// It goes on without its connection, and has no streams.
    pub detached: bool,
}

impl<'a> Description<'a> {
    /// Understands a description.
    ///
    /// # Errors
    ///
    /// When something in it breaks a rule; nothing of it is then used.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DescriptionError> {
        if bytes.len() > MAX_DESCRIPTION {
            return Err(DescriptionError::TooLong);
        }
        let mut description = Self {
            fields: bytes,
            ..Self::default()
        };
        let mut rest = Fields(bytes);
        let mut groups = 0;
        for count in 0.. {
            if rest.0.is_empty() {
                break;
            }
            if count == MAX_FIELDS {
                return Err(DescriptionError::TooManyFields);
            }
            let (tag, value) = field(&mut rest).ok_or(DescriptionError::Malformed)?;
            match tag {
                GROUP => {
                    groups += 1;
                    text("group", groups, value)?;
                }
                _ => description.take(tag, value)?,
            }
        }
        Ok(description)
    }

    fn take(&mut self, tag: u8, value: &'a [u8]) -> Result<(), DescriptionError> {
        match tag {
            ARGUMENT => {
                self.arguments += 1;
                string("argument", self.arguments, value)?;
            }
            VARIABLE => {
                self.variables += 1;
                string("variable", self.variables, value)?;
                if value.iter().position(|byte| *byte == b'=').unwrap_or(0) == 0 {
                    return Err(DescriptionError::Variable {
                        index: self.variables,
                    });
                }
            }
            WORKDIR | MADE_WORKDIR => {
                let path = string("working directory", 1, value)?;
                once("working directory", &mut self.workdir, path)?;
                self.make_workdir = tag == MADE_WORKDIR;
            }
            USER => once("user", &mut self.user, text("user", 1, value)?)?,
            HOSTNAME => once(
                "host name",
                &mut self.hostname,
                text("host name", 1, value)?,
            )?,
            MOUNT | FILLED_MOUNT => {
                mount(tag, value).ok_or(DescriptionError::Value { what: "mount" })?;
            }
            HOST => drop(text("host", 1, value)?),
            NETWORK => drop(text("network", 1, value)?),
            STOP_SIGNAL => once(
                "stop signal",
                &mut self.stop_signal,
                number("stop signal", value, |fields| signal(fields.u8()?))?,
            )?,
            STOP_TIMEOUT => once(
                "stop time limit",
                &mut self.stop_timeout_ms,
                number("stop time limit", value, Fields::u32)?,
            )?,
            TERMINAL => {
                let size = number("terminal", value, |fields| {
                    Some(ConsoleSize {
                        columns: fields.u16()?,
                        rows: fields.u16()?,
                    })
                })?;
                once("terminal", &mut self.terminal, size)?;
            }
            INPUT => self.input = true,
            DETACHED => self.detached = true,
            _ => return Err(DescriptionError::Malformed),
        }
        Ok(())
    }

    fn fields(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut rest = Fields(self.fields);
        core::iter::from_fn(move || field(&mut rest))
    }

    fn all(&self, tag: u8) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let found = self.fields().filter(move |(found, _)| *found == tag);
        found.map(|(_, value)| value)
    }

    /// The program and its arguments.
    pub fn arguments(&self) -> impl Iterator<Item = &'a CStr> + use<'a> {
        self.all(ARGUMENT).filter_map(c_str)
    }

    /// The variables, each `NAME=VALUE`.
    pub fn variables(&self) -> impl Iterator<Item = &'a CStr> + use<'a> {
        self.all(VARIABLE).filter_map(c_str)
    }

    /// Further groups of the user, by name or number.
    pub fn groups(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.all(GROUP)
            .filter_map(|value| text("group", 1, value).ok())
    }

    /// What to mount, in this order.
    pub fn mounts(&self) -> impl Iterator<Item = Mount<'a>> + use<'a> {
        self.fields().filter_map(|(tag, value)| mount(tag, value))
    }

    /// What the guest's `/etc/hosts` is to have beside itself: an address and its names each.
    pub fn hosts(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let hosts = self.all(HOST);
        hosts.filter_map(|value| text("host", 1, value).ok())
    }

    /// Networks to configure, each what `kvmlet.net=` says on the kernel command line.
    pub fn networks(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.all(NETWORK)
            .filter_map(|value| text("network", 1, value).ok())
    }
}

/// The next field: its tag, and its value with the NUL byte.
fn field<'a>(rest: &mut Fields<'a>) -> Option<(u8, &'a [u8])> {
    let tag = rest.u8()?;
    let length = rest.u32()? as usize;
    let (value, others) = rest.0.split_at_checked(length.checked_add(1)?)?;
    rest.0 = others;
    (value.last() == Some(&0)).then_some((tag, value))
}

fn c_str(value: &[u8]) -> Option<&CStr> {
    CStr::from_bytes_with_nul(value).ok()
}

fn string<'a>(
    what: &'static str,
    index: usize,
    value: &'a [u8],
) -> Result<&'a CStr, DescriptionError> {
    if value.len() > MAX_STRING + 1 {
        return Err(DescriptionError::LongString { what, index });
    }
    c_str(value).ok_or(DescriptionError::Nul { what, index })
}

fn text<'a>(
    what: &'static str,
    index: usize,
    value: &'a [u8],
) -> Result<&'a str, DescriptionError> {
    let text = string(what, index, value)?.to_str();
    text.ok()
        .filter(|text| !text.is_empty())
        .ok_or(DescriptionError::Value { what })
}

fn number<'a, T>(
    what: &'static str,
    value: &'a [u8],
    read: impl Fn(&mut Fields<'a>) -> Option<T>,
) -> Result<T, DescriptionError> {
    let mut fields = Fields(&value[..value.len() - 1]);
    let number = read(&mut fields).filter(|_| fields.0.is_empty());
    number.ok_or(DescriptionError::Value { what })
}

fn once<T>(what: &'static str, slot: &mut Option<T>, value: T) -> Result<(), DescriptionError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(DescriptionError::Repeated { what }),
    }
}

/// Flags, and four strings that end with NUL: source, target, type, options.
fn mount(tag: u8, value: &[u8]) -> Option<Mount<'_>> {
    let filled = match tag {
        MOUNT => false,
        FILLED_MOUNT => true,
        _ => return None,
    };
    let mut fields = Fields(value);
    let flags = fields.u32()?;
    let mut next = || {
        let string = CStr::from_bytes_until_nul(fields.0).ok()?;
        fields.0 = &fields.0[string.to_bytes_with_nul().len()..];
        Some(string)
    };
    let mount = Mount {
        flags,
        source: next()?,
        target: next()?,
        fstype: next()?,
        options: next()?,
        filled,
    };
    (fields.0.is_empty() && mount.target.to_bytes().starts_with(b"/")).then_some(mount)
}
