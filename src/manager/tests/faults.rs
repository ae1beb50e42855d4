//! Whatever is killed at whatever instant, and whatever write finds the disk full: the book tells the truth, and the next
//! command clears away what was left.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

#[path = "../../sys/alone.rs"]
mod alone;
mod tracer;

use alone::alone;
use kvmlet_manager::{Asked, Book, End, InstanceId, LogLimits, Moment, Name, State, View};
use std::collections::BTreeSet;
use std::path::Path;
use tracer::{Fault, Went};

/// What the process does that is disturbed; it ends with 0 if that went well, and with 1 if it was told that it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Create,
    Rename,
    Remove,
    Start,
    RunAndEnd,
}

fn asked() -> Asked {
    Asked {
        id: InstanceId::random().unwrap(),
        created: Moment::now(),
        image: "i".into(),
        image_id: None,
        service: kvmlet_manager::Service::default(),
        command: vec![],
        config: serde_json::Value::Null,
        restart: Default::default(),
        health: None,
        remove: false,
        labels: Default::default(),
        log: LogLimits::default(),
        snapshot: None,
        idle: None,
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

impl Act {
    fn run(self, book: &Path) -> Result<(), kvmlet_manager::Error> {
        let book = Book::at(book)?;
        match self {
            Self::Create => drop(book.create(Some(&name("new")), asked())?),
            Self::Rename => drop(book.rename("old", &name("new"))?),
            Self::Remove => book.remove(book.find("old")?.own()?)?,
            Self::Start => {
                let mut keeper = book.find("old")?.own()?.begin()?;
                keeper.running()?;
                // And is gone.
            }
            Self::RunAndEnd => {
                let mut keeper = book.find("old")?.own()?.begin()?;
                keeper.running()?;
                keeper.end(42, None)?;
            }
        }
        Ok(())
    }

    /// Is it true what the book says now, where the act was done (or not), or may be either?
    fn check(self, done: Option<bool>, views: &[View]) {
        let found: BTreeSet<&str> = views.iter().map(View::called).collect();
        let is = |names: &[&str]| found == names.iter().copied().collect();
        let old = views.iter().find(|view| view.called() == "old");
        let (before, after) = match self {
            Self::Create => (is(&["old"]), is(&["old", "new"])),
            Self::Rename => (is(&["old"]), is(&["new"])),
            Self::Remove => (is(&["old"]), is(&[])),
            Self::Start => {
                let state = old.unwrap().state;
                (
                    state == State::Created || state == State::Dead,
                    state == State::Dead,
                )
            }
            Self::RunAndEnd => {
                let view = old.unwrap();
                let ended = matches!(&view.end, Some(End::Told(outcome)) if outcome.code == 42);
                let not_yet = matches!(view.state, State::Created | State::Dead);
                (not_yet, ended && view.state == State::Exited)
            }
        };
        match done {
            Some(true) => assert!(after, "{self:?} was done: {views:?}"),
            Some(false) => assert!(before, "{self:?} was not done: {views:?}"),
            None => assert!(before || after, "{self:?}: {views:?}"),
        }
    }
}

/// Looks at the book as the next command does.
fn look(path: &Path) -> Vec<View> {
    let book = Book::at(path).unwrap();
    let listing = book.list().unwrap();
    assert!(listing.damaged.is_empty(), "{:?}", listing.damaged);
    listing.instances
}

/// What the next command that writes makes of it.
fn go_on(path: &Path, views: &[View]) {
    let book = Book::at(path).unwrap();
    let (_, made) = book.create(None, asked()).unwrap();
    let count = |directory: &str| std::fs::read_dir(path.join(directory)).unwrap().count();
    assert_eq!(
        count("pending"),
        0,
        "nothing is left of what was being made or removed"
    );
    assert_eq!(count("instances"), views.len() + 1);
    // A name is free exactly if nobody is called that; whatever was left of it.
    for text in ["old", "new"] {
        let taken = views.iter().any(|view| view.called() == text);
        assert_eq!(
            book.create(Some(&name(text)), asked()).is_err(),
            taken,
            "{text}"
        );
    }
    // All can be started and removed.
    for view in book.list().unwrap().instances {
        let owned = book.find(view.id.as_str()).unwrap().own().unwrap();
        book.remove(owned.begin().unwrap().end(0, None).unwrap())
            .unwrap();
    }
    assert!(book.find(made.as_str()).is_err());
    assert_eq!(
        [count("instances"), count("names"), count("pending")],
        [0; 3]
    );
}

/// Disturbs an act at each instant that there is.
fn disturb(act: Act, fault: impl Fn(usize) -> Fault) -> usize {
    for at in 0.. {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("book");
        Book::at(&path)
            .unwrap()
            .create(Some(&name("old")), asked())
            .unwrap();
        let went = tracer::run(fault(at), || match act.run(&path) {
            Ok(()) => 0,
            Err(_) => 1,
        });
        let views = look(&path);
        match went {
            Went::Killed => act.check(None, &views),
            // What is told as done is done, and what is told as not done is not.
            Went::Ended(code) | Went::Unharmed(code) => act.check(Some(code == 0), &views),
        }
        go_on(&path, &views);
        if let Went::Unharmed(code) = went {
            assert_eq!(code, 0);
            return at;
        }
    }
    unreachable!("an act ends")
}

const ACTS: [Act; 5] = [
    Act::Create,
    Act::Rename,
    Act::Remove,
    Act::Start,
    Act::RunAndEnd,
];

#[test]
fn who_is_killed_leaves_a_true_book() {
    alone("who_is_killed_leaves_a_true_book", || {
        // Its start is a part of a run.
        for act in ACTS.into_iter().filter(|act| *act != Act::Start) {
            let instants = disturb(act, Fault::KilledAt);
            println!("{act:?}: {instants} instants");
            assert!(instants > 20, "{act:?}");
        }
    });
}

#[test]
fn a_full_disk_leaves_a_true_book() {
    alone("a_full_disk_leaves_a_true_book", || {
        for act in ACTS {
            let writes = disturb(act, Fault::NoSpaceAt);
            println!("{act:?}: {writes} writes");
            assert!(writes > 1, "{act:?}");
        }
    });
}
