//! Leases that VMs have left over in other network namespaces, which are looked for once in a while: whether such a
//! namespace is gone only a look at all processes of the host tells.

use super::Error;
use super::lease::Leases;
use super::namespace::Namespace;
use std::time::{Duration, SystemTime};

/// In the leases' directory: the names of those that were seen to be for a command elsewhere, when this was written.
pub(super) const NAME: &str = "elsewhere";
const MAX_BYTES: u64 = 1 << 20;
/// For how long they are left alone.
const REST: Duration = Duration::from_secs(60);
/// How many leases a start without a network looks at where the roll does not tell.
const ASKED: usize = 16;

/// Those that are known to be for a command elsewhere.
pub(super) struct Known {
    names: Vec<String>,
    /// What the names of those end with that are for one here.
    here: String,
}

impl Known {
    /// What is noted of them, if that is not too old.
    pub fn of(leases: &Leases, here: Namespace) -> Self {
        let here = format!("-{}", here.inode);
        let mut names = noted(leases);
        names.retain(|name| name.contains('-') && !name.ends_with(&here));
        Self { names, here }
    }

    pub fn contains(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// Leaves them out, unless there are others that are for a command elsewhere: then all of those are looked for.
    pub fn leave_out(&self, left: &mut Vec<(u32, String)>) {
        let mut names = left.iter().map(|(_, name)| name);
        if names.all(|name| name.ends_with(&self.here) || self.contains(name)) {
            left.retain(|(_, name)| !self.contains(name));
        }
    }
}

/// Is there a lease that nobody holds, and that is not known to be for a command elsewhere? Where the roll does not tell, some
/// of many are asked for.
pub(super) fn is_there(leases: &Leases) -> Result<bool, Error> {
    let known = Known::of(leases, Namespace::here());
    leases.has_left(ASKED, |name| known.contains(name))
}

/// Notes it of these, and of no others.
pub(super) fn know<'a>(leases: &mut Leases, names: impl Iterator<Item = &'a String>) {
    let text: String = names.map(|name| format!("{name}\n")).collect();
    let noted = match text.is_empty() {
        true => leases.directory().remove(NAME),
        false => leases.directory().write(NAME, text.as_bytes()),
    };
    let noted = noted.and_then(|()| leases.stamp());
    if let Err(error) = noted {
        log::debug!("all processes are looked at again: {error}");
    }
}

fn noted(leases: &Leases) -> Vec<String> {
    let directory = leases.directory();
    let read = || {
        let written = directory.open_existing(NAME)?.metadata()?.modified()?;
        // One that will have been written is none.
        let age = SystemTime::now().duration_since(written);
        let rests = age.is_ok_and(|age| age < REST);
        directory
            .read(NAME, MAX_BYTES)
            .map(|text| text.filter(|_| rests))
    };
    let text = read().ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().map(str::to_owned).collect()
}
