//! `kvmlet cp`.

mod stream;

use super::instances::agent::{failed, reach};
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_control::agent::Owners;
use kvmlet_sys::output::{StandardInput, StandardOutput};
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Copy files between an instance that runs and this host.
///
/// One of the two is a path of the instance, from its root on: NAME:PATH. A path of this host that has a colon in it starts with `/` or `.`.
/// The other may be `-`: an archive of tar, on standard output or from standard input, from which it goes into the directory NAME:PATH, which is there.
///
/// What is copied goes into the destination if that is a directory, and else is called as that is. A source that ends in `/.` is what is in
/// that directory. Symbolic links are copied as such, unless they are this host's and end in a slash. The image needs no program for that.
#[derive(Args)]
pub(super) struct Cp {
    /// Owners, modes and attributes stay as they are. Here that takes root, and trust in the guest. Without it copies belong to you, or to
    /// root in the guest.
    #[arg(short, long)]
    archive: bool,
    /// What is copied.
    #[arg(value_name = "[INSTANCE:]SOURCE")]
    source: OsString,
    /// Where it goes.
    #[arg(value_name = "[INSTANCE:]DESTINATION")]
    destination: OsString,
}

impl Cp {
    pub fn run(self) -> Outcome {
        let owners = match self.archive {
            true => Owners::Theirs,
            false => Owners::Mine,
        };
        let sides = (Side::of(&self.source)?, Side::of(&self.destination)?);
        match sides {
            (Side::Guest { instance, path }, Side::Host(to)) => {
                const VAIN: &str = "cannot copy from";
                let (path, kind) = source(&path);
                let to = PathBuf::from(OsString::from_vec(destination(to.as_bytes(), kind)));
                let (view, mut agent) = reach(instance, VAIN)?;
                let copied = agent.copy_from(path, &to, owners, None);
                copied.map_err(|error| failed(&view, VAIN, error))?;
            }
            (Side::Host(from), Side::Guest { instance, path }) => {
                const VAIN: &str = "cannot copy to";
                let (from, kind) = found(from)?;
                let (view, mut agent) = reach(instance, VAIN)?;
                let copied = agent.copy_to(&from, &destination(&path, kind), owners, None);
                copied.map_err(|error| failed(&view, VAIN, error))?;
            }
            (Side::Guest { instance, path }, Side::Stream) => {
                const VAIN: &str = "cannot copy from";
                let (path, kind) = source(&path);
                refuse_terminal(io::stdout().is_terminal())?;
                let (view, mut agent) = reach(instance, VAIN)?;
                let packed = stream::pack(&mut agent, path, kind == Kind::Content, StandardOutput);
                packed.map_err(|error| failed(&view, VAIN, error))?;
            }
            (Side::Stream, Side::Guest { instance, path }) => {
                const VAIN: &str = "cannot copy to";
                refuse_terminal(io::stdin().is_terminal())?;
                let (view, mut agent) = reach(instance, VAIN)?;
                let there = stream::is_directory(&mut agent, bare(&path));
                there.map_err(|error| failed(&view, VAIN, error))?;
                // A connection is for one of the agent's tools.
                let (view, mut agent) = reach(instance, VAIN)?;
                let path = destination(&path, Kind::Content);
                let unpacked = stream::unpack(&mut agent, &path, owners, StandardInput);
                unpacked.map_err(|error| failed(&view, VAIN, error))?;
            }
            (Side::Host(_) | Side::Stream, Side::Host(_) | Side::Stream) => {
                return Err(Failed::new("neither path is one of an instance")
                    .help("`NAME:PATH` is one; `cp` copies on this host"));
            }
            (Side::Guest { .. }, Side::Guest { .. }) => {
                return Err(Failed::new("both paths are of instances")
                    .help("copy to a file or directory of this host first"));
            }
        }
        Ok(0)
    }
}

/// What is told where a person has asked for an archive on a terminal, which would take it for orders.
fn refuse_terminal(is_terminal: bool) -> Result<(), Failed> {
    match is_terminal {
        true => Err(Failed::new("an archive is not for a terminal")
            .help("pipe it into a program, such as `| tar -x`, or into a file")),
        false => Ok(()),
    }
}

/// Whose a path is.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Host(&'a OsStr),
    /// An archive on standard input or output.
    Stream,
    /// The path is absolute.
    Guest {
        instance: &'a str,
        path: Vec<u8>,
    },
}

impl<'a> Side<'a> {
    /// As docker tells them apart: by a colon, unless a `/` or `.` starts it.
    fn of(text: &'a OsStr) -> Result<Self, Failed> {
        let bytes = text.as_bytes();
        if bytes == b"-" {
            return Ok(Self::Stream);
        }
        let colon = bytes.iter().position(|byte| *byte == b':');
        let Some(colon) = colon.filter(|_| !matches!(bytes[0], b'/' | b'.')) else {
            return match bytes.is_empty() {
                true => Err(Failed::new("an empty path is none")),
                false => Ok(Self::Host(text)),
            };
        };
        let text = text.display();
        let no_name = || {
            Failed::new(format!("`{text}` names no instance"))
                .help(format!("`./{text}` is a file of this host"))
        };
        let instance = std::str::from_utf8(&bytes[..colon]).map_err(|_| no_name())?;
        match (instance, &bytes[colon + 1..]) {
            ("", _) => Err(no_name()),
            (_, b"") => Err(Failed::new(format!("`{text}` names no path"))
                .help(format!("`{text}/` is the instance's root"))),
            (instance, path) => {
                let mut absolute = match path[0] {
                    b'/' => Vec::new(),
                    _ => b"/".to_vec(),
                };
                absolute.extend_from_slice(path);
                let path = absolute;
                Ok(Self::Guest { instance, path })
            }
        }
    }
}

/// What a source is, by all that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// What is in a directory.
    Content,
    /// A directory, with its name.
    Directory,
    /// That shows when it comes, or it is no directory.
    Other,
}

/// A path of a guest without what is said of it by its end.
fn source(path: &[u8]) -> (&[u8], Kind) {
    let kind = match path.ends_with(b"/.") {
        true => Kind::Content,
        false => Kind::Other,
    };
    (bare(path), kind)
}

/// A path of this host, which is there.
fn found(path: &OsStr) -> Result<(PathBuf, Kind), Failed> {
    let missing =
        |error: io::Error| Failed::in_vain(format!("cannot copy `{}`", path.display()), error);
    let (_, kind) = source(path.as_bytes());
    let ends_like_directory = kind == Kind::Content || path.as_bytes().ends_with(b"/");
    let path = Path::new(path);
    if ends_like_directory {
        // What a link leads to, then. It fails where that is no directory.
        let kind = match kind {
            Kind::Other => Kind::Directory,
            kind => kind,
        };
        return Ok((path.canonicalize().map_err(missing)?, kind));
    }
    let kind = match path.symlink_metadata().map_err(missing)?.is_dir() {
        true => Kind::Directory,
        false => kind,
    };
    Ok((path.to_path_buf(), kind))
}

/// The path that a source of that kind goes to, as [`kvmlet_control::agent::Agent::copy_to`] takes it.
fn destination(path: &[u8], kind: Kind) -> Vec<u8> {
    let ends_like_directory = path.ends_with(b"/") || path.ends_with(b"/.") || path == b".";
    let mut wanted = bare(path).to_vec();
    let end: &[u8] = match kind {
        Kind::Content if wanted == b"/" => b".",
        Kind::Content => b"/.",
        // It is made if there is none.
        Kind::Directory => b"",
        Kind::Other if ends_like_directory && wanted != b"/" => b"/",
        Kind::Other => b"",
    };
    wanted.extend_from_slice(end);
    wanted
}

/// A path without slashes and dots at its end that change nothing about which directory it is.
fn bare(mut path: &[u8]) -> &[u8] {
    while path.len() > 1 {
        path = match path {
            [rest @ .., b'/'] => rest,
            [b'/', b'.'] => b"/",
            [rest @ .., b'/', b'.'] => rest,
            _ => return path,
        };
    }
    path
}

#[cfg(test)]
mod tests;
