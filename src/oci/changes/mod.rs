//! What a running guest has changed of its root: told, or as a layer. It is the guest's agent that says so, which is no more
//! to be believed than an archive that comes from anywhere.

mod archive;
mod records;

pub use archive::{Archived, archive};

use kvmlet_control::agent::{Agent, CopyError};
use kvmlet_image::tree::Tree;
use kvmlet_spec::{Advice, Remedy};
use records::{Changes, Item, Kind};
use std::io;
use std::os::unix::net::UnixStream;

/// The most that is told of, and the bytes of its paths.
const MAX_ITEMS: usize = 1_000_000;
const MAX_PATHS: usize = 64 << 20;
/// What init makes for each guest: neither the image's nor the service's.
const OF_INIT: [&[u8]; 3] = [b"etc/hostname", b"etc/hosts", b"etc/resolv.conf"];
/// Where init mounts something: made where an image lacks it.
const PLACES: [&[u8]; 5] = [b"proc", b"dev", b"sys", b"run", b"tmp"];

/// Why it is not told what a guest has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The guest does not tell.
    #[error(transparent)]
    Guest(#[from] CopyError),
    /// What it tells is not changes.
    #[error("what the guest tells cannot be read")]
    Read(#[source] io::Error),
    /// It is more than can be.
    #[error(
        "the guest tells of more than {MAX_ITEMS} changes, or of paths of more than {MAX_PATHS} bytes"
    )]
    Many,
    /// What it tells is not kept.
    #[error("what has changed cannot be written")]
    Write(#[source] io::Error),
    /// It is longer than a layer.
    #[error("what has changed is more than {0} bytes")]
    Long(u64),
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        match self {
            Self::Guest(CopyError::Guest(said)) if said.contains("tool") => Some(
                "its init is older than this kvmlet: `images/build init`, and start the instance again".into(),
            ),
            _ => None,
        }
    }
}

/// What has become of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It was there, and is another one now.
    Changed,
    /// It is gone.
    Removed,
}

impl Change {
    /// Docker's letter.
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Removed => 'D',
        }
    }
}

/// What has changed, by paths from the root on, sorted; `below` is what was there before, if that is known.
///
/// # Errors
/// When the guest does not tell, or nonsense.
pub fn list(agent: &mut Agent, below: Option<&Tree>) -> Result<Vec<(Change, Vec<u8>)>, Error> {
    let mut all = with(agent, false, |changes| {
        let (mut all, mut bytes) = (Vec::new(), 0);
        while let Some(item) = changes.item().map_err(Error::Read)? {
            // What was moved says of itself that it was there, wherever that was.
            let was_there = below.map_or(item.was_there, |tree| {
                tree.at(item.path.split(|it| *it == b'/')).is_some()
            });
            if is_of_init(&item, was_there) {
                continue;
            }
            bytes += item.path.len();
            if all.len() == MAX_ITEMS || bytes > MAX_PATHS {
                return Err(Error::Many);
            }
            let change = match (&item.kind, was_there) {
                (Kind::Removed, _) => Change::Removed,
                (_, true) => Change::Changed,
                (_, false) => Change::Added,
            };
            all.push((change, item.path));
        }
        Ok(all)
    })?;
    all.sort_by(|(_, one), (_, other)| one.cmp(other));
    // Init puts files there.
    let etc = all.iter().position(|(_, path)| path == b"etc");
    let has_more = all.iter().any(|(_, path)| path.starts_with(b"etc/"));
    if let Some(etc) = etc.filter(|etc| all[*etc].0 != Change::Removed && !has_more) {
        all.remove(etc);
    }
    Ok(all)
}

/// Whether something is there because init has put it there.
fn is_of_init(item: &Item, was_there: bool) -> bool {
    let path = &*item.path;
    let is_directory = matches!(item.kind, Kind::Directory { .. });
    let is_place = is_directory && !was_there && PLACES.contains(&path);
    path.is_empty() || OF_INIT.contains(&path) || is_place
}

/// Has `take` read what a guest has changed.
fn with<T: Send>(
    agent: &mut Agent,
    content: bool,
    take: impl FnOnce(&mut Changes<UnixStream>) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let (from, mut to) = UnixStream::pair().map_err(Error::Read)?;
    std::thread::scope(|scope| {
        let taking = scope.spawn(move || take(&mut Changes::new(from)));
        let told = agent.changes(content, &mut to, None);
        drop(to);
        let taken = taking
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (taken, told) {
            // A guest that has failed has not said all.
            (Err(Error::Read(error)), Err(told))
                if error.kind() == io::ErrorKind::UnexpectedEof =>
            {
                Err(told.into())
            }
            // Whoever reads no more is why the guest was not heard any more.
            (Err(error), _) => Err(error),
            (Ok(_), Err(told)) => Err(told.into()),
            (taken, Ok(())) => taken,
        }
    })
}

#[cfg(test)]
mod tests;
