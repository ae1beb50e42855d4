//! What a start looks at of this host. All routes and all interfaces are looked at once a minute at the most, as
//! long as there are guests; in between it is enough to ask for what is new, and for what is about to be taken.

use super::link;
use super::lookup::Lookup;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// For how long what was seen is believed.
const REST: Duration = Duration::from_secs(60);
/// How many interfaces are asked for one by one.
const MOST: usize = 64;

/// What was seen when all was looked at, and since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// When all was looked at, in seconds since 1970.
    at: u64,
    /// Which range of networks no route of others touched.
    pub range: Option<usize>,
    /// The highest number of interfaces that were looked at.
    interface: u32,
    /// Those that did not forward.
    idle: Vec<u32>,
}

/// What one start looks at.
pub(super) struct Look {
    /// What was seen before, if that is to be believed.
    pub before: Option<Seen>,
    /// What is seen now.
    pub now: Seen,
    pub lookup: Option<Lookup>,
}

fn seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Look {
    pub fn after(before: Option<&Seen>) -> Self {
        let now = seconds();
        // What will have been seen was not.
        let is_fresh = |seen: &&Seen| (0..REST.as_secs()).contains(&now.wrapping_sub(seen.at));
        let before = before.filter(is_fresh).cloned();
        let lookup = before.as_ref().and_then(|_| Lookup::open().ok());
        Self {
            now: Seen {
                at: before.as_ref().map_or(now, |seen| seen.at),
                range: before.as_ref().and_then(|seen| seen.range),
                ..Seen::default()
            },
            before,
            lookup,
        }
    }

    /// The names of interfaces that clients may come in on, and that were not looked at before or did not forward. `tap`
    /// is the number of a new one that they do not come in on.
    pub fn clients(&mut self, link: &link::Socket, tap: u32) -> Vec<String> {
        self.now.interface = tap;
        let some = self.new_clients(link, tap);
        some.unwrap_or_else(|| {
            self.now.idle.clear();
            self.all_clients(link, tap)
        })
    }

    fn new_clients(&mut self, link: &link::Socket, tap: u32) -> Option<Vec<String>> {
        let (before, lookup) = (self.before.as_ref()?, self.lookup.as_mut()?);
        let new = before.interface.checked_add(1)?..tap;
        if new.len() + before.idle.len() > MOST {
            return None;
        }
        let mut names = Vec::new();
        for number in before.idle.iter().copied().chain(new) {
            match lookup.forwards(number).ok()? {
                // One that has gone since has no name.
                Some(true) => names.extend(link.name(number).ok()),
                Some(false) => self.now.idle.push(number),
                None => {}
            }
        }
        Some(names)
    }

    fn all_clients(&mut self, link: &link::Socket, tap: u32) -> Vec<String> {
        let mut names = Vec::new();
        for name in link::interfaces() {
            if link::forwards(&name) {
                names.push(name);
            } else if let Ok(number) = link.index(&name)
                && number != tap
            {
                self.now.idle.push(number);
            }
        }
        names
    }
}
