//! The process that takes a layer apart: it decompresses and reads what strangers have made, and has nothing but its own
//! descriptors. The layer's archive comes over standard input, its file in the store is standard output, and what went wrong
//! comes over standard error.

use kvmlet_host::walls::rights;
use kvmlet_image::layer::{Decompressed, LIMITS};
use kvmlet_image::source::spool;
use kvmlet_image::store::fill_layer;
use kvmlet_image::{Digest, feed};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::temporary::unnamed;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::error::Error as StdError;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

/// The word that has this program be that process. Its arguments are a layer's digest, and a directory for a
/// temporary file, which is opened before it gives up to open any; without them it decompresses an
/// archive, and no more.
pub const WORD: &str = "unpack-layer";
/// This program.
pub(crate) const PROGRAM: &str = "/proc/self/exe";
/// What a pipe holds: fewer turns between both processes.
const PIPE: usize = 1 << 20;
/// The longest error that is read.
const MAX_ERROR: u64 = 256 << 10;
/// Bytes that it may have mapped; twice what a layer at its limits takes.
const MAX_MEMORY: u64 = 4 << 30;

/// An error of that process, with its causes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Told {
    said: String,
    cause: Option<Box<Self>>,
}

impl fmt::Display for Told {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.said)
    }
}

impl StdError for Told {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl Told {
    fn of(error: &dyn StdError) -> Self {
        Self {
            said: error.to_string(),
            cause: error.source().map(|cause| Box::new(Self::of(cause))),
        }
    }
}

/// Why a layer was not taken apart.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process cannot be started.
    #[error("no process can be started to unpack a layer")]
    Start(#[source] io::Error),
    /// It says why.
    #[error(transparent)]
    Told(Told),
    /// It has ended without a word of its own.
    #[error("the process that unpacks {what} has ended: {how}")]
    Ended {
        /// Which one.
        what: String,
        /// By what, and what it has said.
        how: String,
    },
    /// The archive does not come.
    #[error("{what} does not come")]
    Archive {
        /// Which one.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Has such a process read an archive into a layer's file, which was begun in the store's directory `place`.
///
/// # Errors
/// When it is no layer, or another one.
pub fn unpack(
    diff_id: &Digest,
    archive: impl Read,
    file: &File,
    place: &Path,
) -> Result<(), Error> {
    let what = format!("layer {diff_id}");
    let arguments = [diff_id.to_string().into(), place.as_os_str().to_owned()];
    have_done(&what, &arguments, archive, file)
}

/// Has such a process decompress an archive into an empty file.
///
/// # Errors
/// When it is compressed badly, does not begin as an archive, or cannot be written.
pub fn decompress(archive: impl Read, file: &File) -> Result<(), Error> {
    have_done("the archive", &[], archive, file)
}

fn have_done(
    what: &str,
    arguments: &[OsString],
    mut archive: impl Read,
    file: &File,
) -> Result<(), Error> {
    let output = file.try_clone().map_err(Error::Start)?;
    let mut child = Command::new(PROGRAM)
        .arg(WORD)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::Start)?;
    let mut fed = Ok(());
    if let Some(mut input) = child.stdin.take() {
        // The default does, with more turns.
        let _ = rustix::pipe::fcntl_setpipe_size(&input, PIPE);
        fed = feed(&mut archive, &mut input);
        if fed.is_err() {
            // Before its input ends: it would take a beginning for the whole.
            let _ = child.kill();
        }
    }
    let mut said = Vec::new();
    if let Some(errors) = child.stderr.take() {
        let _ = errors.take(MAX_ERROR).read_to_end(&mut said);
    }
    let status = child.wait().map_err(Error::Start)?;
    let what = what.to_owned();
    if let Err(source) = fed {
        return Err(Error::Archive { what, source });
    }
    if status.success() {
        return Ok(());
    }
    Err(match serde_json::from_slice(&said) {
        Ok(told) => Error::Told(told),
        Err(_) => {
            let text = String::from_utf8_lossy(&said);
            let how = format!("{status} {}", text.lines().next().unwrap_or_default());
            Error::Ended { what, how }
        }
    })
}

/// Is that process, with the arguments behind its word.
pub fn run(arguments: impl Iterator<Item = OsString>) -> u8 {
    match take_apart(arguments) {
        Ok(()) => 0,
        Err(error) => {
            let told = serde_json::to_vec(&Told::of(&*error)).unwrap_or_default();
            // Nobody else is there to be told.
            let _ = io::stderr().write_all(&told);
            1
        }
    }
}

fn take_apart(mut arguments: impl Iterator<Item = OsString>) -> Result<(), Box<dyn StdError>> {
    let mut archive = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let digest = arguments.next();
    let place = arguments.next();
    let rest = place
        .map(|place| unnamed(&Directory::open(Path::new(&place))?))
        .transpose()?;
    let bound = Rlimit {
        current: Some(MAX_MEMORY),
        maximum: Some(MAX_MEMORY),
    };
    setrlimit(Resource::As, bound)?;
    rights::take_apart()?;
    match (digest, rest) {
        (Some(digest), Some(rest)) => {
            let expected = digest
                .to_str()
                .and_then(Digest::parse)
                .ok_or("not a digest")?;
            Ok(fill_layer(archive, &expected, &LIMITS, file, rest)?)
        }
        _ => {
            let mut plain = Decompressed::new(&mut archive)?;
            Ok(spool(&mut plain, &mut file)?)
        }
    }
}
