//! What clients and supervisors write down for themselves, before and after what they do: the truth that the book is
//! compared with.

use kvmlet_manager::View;
use kvmlet_sys::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, read_to_string};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One file of lines, which are written at once and so never in part, and a file for each instance that its supervisor
/// locks.
pub struct Diary {
    place: PathBuf,
    lines: File,
}

/// What supervisors of an instance have written.
#[derive(Debug, Default)]
pub struct Runs {
    /// The last one that has begun.
    pub begun: u64,
    /// The last one that was about to say how it ends.
    pub ending: Option<(u64, u8)>,
    /// The last one that has said so.
    pub ended: Option<(u64, u8)>,
}

impl Diary {
    pub fn make(place: &Path) -> Self {
        std::fs::create_dir(place.join("owners")).unwrap();
        Self::open(place)
    }

    pub fn open(place: &Path) -> Self {
        let mut options = File::options();
        let lines = options.append(true).create(true).open(place.join("diary"));
        Self {
            place: place.into(),
            lines: lines.unwrap(),
        }
    }

    pub fn write(&self, line: &str) {
        (&self.lines)
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }

    /// Makes sure in another way that a supervisor is alone.
    pub fn claim(&self, id: &str) -> File {
        let file = File::create(self.place.join("owners").join(id)).unwrap();
        if !lock::try_acquire(&file).unwrap() {
            self.write(&format!("VIOLATION {id} has two owners"));
        }
        file
    }

    fn lines(&self) -> Vec<Vec<String>> {
        let text = read_to_string(self.place.join("diary")).unwrap();
        let words = |line: &str| line.split(' ').map(Into::into).collect();
        text.lines().map(words).collect()
    }

    pub fn violations(&self) -> String {
        let text = read_to_string(self.place.join("diary")).unwrap();
        text.lines()
            .filter(|line| line.starts_with("VIOLATION"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for line in self.lines() {
            *counts.entry(line[0].clone()).or_default() += 1;
        }
        counts
    }

    pub fn runs(&self, id: &str) -> Runs {
        let mut runs = Runs::default();
        for line in self
            .lines()
            .iter()
            .filter(|line| line.get(1).is_some_and(|it| it == id))
        {
            let run = || line[2].parse::<u64>().unwrap();
            let code = || line[3].parse().unwrap();
            match line[0].as_str() {
                "begun" => runs.begun = runs.begun.max(run()),
                "ending" => runs.ending = runs.ending.max(Some((run(), code()))),
                "ended" => runs.ended = runs.ended.max(Some((run(), code()))),
                _ => {}
            }
        }
        runs
    }

    /// Is in the book what should be there, by a name that it may have?
    pub fn compare(&self, views: &[View]) {
        let lines = self.lines();
        let of = |what: &str| -> BTreeSet<&str> {
            let lines = lines.iter().filter(|line| line[0] == what);
            lines.map(|line| line[1].as_str()).collect()
        };
        let [creating, created, uncreated] = ["creating", "created", "uncreated"].map(of);
        let [removing, removed] = ["removing", "removed"].map(of);
        let in_book: BTreeSet<&str> = views.iter().map(|view| view.id.as_str()).collect();
        assert!(in_book.is_subset(&creating), "nobody has made it");
        assert!(
            in_book.is_disjoint(&uncreated),
            "it was said not to be made"
        );
        assert!(in_book.is_disjoint(&removed), "it was said to be removed");
        let kept: BTreeSet<&str> = created.difference(&removing).copied().collect();
        assert!(kept.is_subset(&in_book), "it is lost");
        let twice = lines.iter().filter(|line| line[0] == "removed").count() - removed.len();
        assert_eq!(twice, 0, "it was removed twice");
        let names: BTreeSet<&str> = views.iter().map(View::called).collect();
        assert_eq!(names.len(), views.len(), "two have one name");
        for view in views {
            let may = |line: &&Vec<String>| {
                let named = ["creating", "renaming"].contains(&line[0].as_str());
                named && line[1] == view.id.as_str() && (line[2] == view.called() || line[2] == "-")
            };
            assert!(
                lines.iter().find(may).is_some(),
                "nobody has named it so: {view:?}"
            );
        }
    }
}
