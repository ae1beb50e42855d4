//! What was done, and what must not have happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What an instance was made to do.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its service ends by itself, with this code; or goes on until it is stopped.
    pub code: Option<u8>,
    /// It is removed when it has ended.
    pub removed: bool,
    /// How often it is started again.
    pub restarts: u64,
}

#[derive(Default)]
struct Pages {
    /// By the number of what has made it, which is its label.
    made: BTreeMap<String, Made>,
    /// Ids that were told.
    begun: BTreeSet<String>,
    /// Ids that were removed, as who has done it was told.
    removed: BTreeSet<String>,
    /// Names and ids of which somebody wanted something that changes what becomes of an instance.
    touched: BTreeSet<String>,
    /// Those that were removed without force.
    removed_alone: BTreeSet<String>,
    /// All names that an id is known to have had.
    names: BTreeMap<String, BTreeSet<String>>,
    /// Ids whose supervisor was killed.
    killed: BTreeSet<String>,
    counts: BTreeMap<&'static str, usize>,
    lines: Vec<String>,
    violations: Vec<String>,
}

/// Of all clients.
#[derive(Default)]
pub struct Diary(Mutex<Pages>);

impl Diary {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was done, and what came of it.
    pub fn note(&self, what: &'static str, line: String) {
        let mut pages = self.pages();
        *pages.counts.entry(what).or_default() += 1;
        pages.lines.push(format!("{what} {line}"));
    }

    /// Something is going to be made.
    pub fn making(&self, act: &str, made: Made) {
        self.pages().made.insert(act.into(), made);
    }

    pub fn made(&self, act: &str) -> Option<Made> {
        self.pages().made.get(act).cloned()
    }

    pub fn begins(&self, id: &str) {
        self.pages().begun.insert(id.into());
    }

    /// Somebody is about to have something become of who is called that.
    pub fn touching(&self, reference: &str) {
        self.pages().touched.insert(reference.into());
    }

    /// Is nobody known to have touched it, by its id or one of its names?
    pub fn is_untouched(&self, id: &str, name: &str) -> bool {
        let pages = self.pages();
        let names = pages.names.get(id).into_iter().flatten();
        let mut all = names.map(String::as_str).chain([id, name]);
        all.all(|reference| !pages.touched.contains(reference))
    }

    /// It has that name, or is about to have it.
    pub fn called(&self, id: &str, name: &str) {
        let mut pages = self.pages();
        let known = pages.names.entry(id.into()).or_default();
        known.insert(name.into());
    }

    /// It is gone. By whom it was asked for, unless that was by force, is alone in that.
    pub fn removed(&self, id: &str, by_force: bool) {
        let mut pages = self.pages();
        pages.removed.insert(id.into());
        let again = !by_force && !pages.removed_alone.insert(id.into());
        drop(pages);
        if again {
            self.violation(format!("{id} was removed twice"));
        }
    }

    pub fn was_removed(&self, id: &str) -> bool {
        self.pages().removed.contains(id)
    }

    pub fn killing(&self, id: &str) {
        self.pages().killed.insert(id.into());
    }

    pub fn was_killed(&self, id: &str) -> bool {
        self.pages().killed.contains(id)
    }

    /// Ids that were told when their services ran, but for those that are removed when they have ended.
    pub fn begun(&self) -> Vec<String> {
        self.pages().begun.iter().cloned().collect()
    }

    pub fn violation(&self, text: String) {
        self.pages().violations.push(text);
    }

    /// The first of them, with what was done.
    pub fn violations(&self) -> String {
        let pages = self.pages();
        if pages.violations.is_empty() {
            return String::new();
        }
        let of = |text: &str| {
            // What was done to whom it is about.
            let ids = text.split(|c: char| !c.is_ascii_hexdigit());
            let id = ids.max_by_key(|word| word.len()).unwrap_or_default();
            let about = |line: &&String| id.len() == 64 && line.contains(id);
            let lines = pages.lines.iter().filter(about).cloned();
            lines.collect::<Vec<_>>().join("\n    ")
        };
        // One has others follow.
        let told = pages.violations.iter().take(10);
        told.map(|text| format!("\n{text}\n    {}", of(text)))
            .collect()
    }

    pub fn counts(&self) -> String {
        let pages = self.pages();
        let counts = pages.counts.iter();
        let words: Vec<_> = counts
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        words.join(", ")
    }
}
