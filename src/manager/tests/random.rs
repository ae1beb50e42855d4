//! Eight clients at once do a thousand things at random with one book, while supervisors and clients are killed; then the
//! book is compared with what they have written down for themselves.
//!
//! Supervisors are real processes that hold real locks, with nothing to supervise.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

#[path = "random/client.rs"]
mod client;
#[path = "random/diary.rs"]
mod diary;

use diary::Diary;
use kvmlet_manager::{Book, End, State, View};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PLACE: &str = "KVMLET_TEST_RANDOM";
const CLIENTS: usize = 8;
/// What each client does.
const ACTS: usize = 150;

fn spawn(place: &Path, number: usize, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1", TEST])
        .env(PLACE, format!("{number} {seed} {}", place.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

const TEST: &str = "whatever_is_done_and_killed_the_book_is_true";

#[test]
fn whatever_is_done_and_killed_the_book_is_true() {
    if let Ok(text) = std::env::var(PLACE) {
        let words: Vec<&str> = text.splitn(3, ' ').collect();
        let [number, seed, place] = words[..] else {
            panic!("{text}");
        };
        return client::run(
            Path::new(place),
            number.parse().unwrap(),
            seed.parse().unwrap(),
        );
    }
    let place = tempfile::tempdir().unwrap();
    let diary = Diary::make(place.path());
    let book = Book::at(&place.path().join("book")).unwrap();
    let mut seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    println!("seed {seed}");
    let mut clients: Vec<Child> = (0..CLIENTS)
        .map(|number| spawn(place.path(), number, seed + number as u64))
        .collect();
    // Some clients are killed in the middle of what they do, and come again.
    let mut killed = 0;
    while clients
        .iter_mut()
        .any(|client| client.try_wait().unwrap().is_none())
    {
        std::thread::sleep(Duration::from_millis(7));
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let number = (seed >> 33) as usize % CLIENTS;
        if killed < 60 && clients[number].try_wait().unwrap().is_none() {
            clients[number].kill().unwrap();
            clients[number].wait().unwrap();
            clients[number] = spawn(place.path(), number, seed);
            killed += 1;
        }
    }
    for client in &mut clients {
        assert!(client.wait().unwrap().success(), "{}", diary.violations());
    }
    // Supervisors that live longest end now.
    for view in book.list().unwrap().instances {
        book.find(view.id.as_str()).unwrap().wait().unwrap();
    }
    assert_eq!(diary.violations(), "");
    let listing = book.list().unwrap();
    assert!(listing.damaged.is_empty(), "{:?}", listing.damaged);
    let counts = diary.counts();
    println!(
        "{killed} clients killed; {counts:?}; {} instances left",
        listing.instances.len()
    );
    for what in ["created", "removed", "renamed", "begun", "ended", "killing"] {
        assert!(
            counts.get(what).is_some_and(|count| *count > 5),
            "{what}: {counts:?}"
        );
    }
    diary.compare(&listing.instances);
    listing
        .instances
        .iter()
        .for_each(|view| ended_as_told(&diary, view));
    nothing_else_is_left(&book, &place.path().join("book"), &listing.instances);
}

/// Is what the book says of the last run what its supervisor has written down?
fn ended_as_told(diary: &Diary, view: &View) {
    let told = diary.runs(view.id.as_str());
    let run = view.record.run;
    assert!(told.begun <= run, "{told:?} {view:?}");
    let code = match &view.end {
        Some(End::Told(outcome)) => Some(outcome.code),
        _ => None,
    };
    if run == 0 {
        assert_eq!(view.state, State::Created);
    } else if told.ended.is_some_and(|(of, _)| of == run) {
        // It has said so itself.
        assert_eq!(code, told.ended.map(|(_, code)| code), "{told:?} {view:?}");
        assert_eq!(view.state, State::Exited);
    } else if told.ending.is_some_and(|(of, _)| of == run) {
        // It was about to.
        assert!(
            code.is_none() || code == told.ending.map(|(_, code)| code),
            "{told:?} {view:?}"
        );
    } else {
        assert_eq!(
            (view.state, &view.end),
            (State::Dead, &Some(End::Killed)),
            "{told:?} {view:?}"
        );
    }
}

fn nothing_else_is_left(book: &Book, path: &Path, views: &[View]) {
    let entries = |directory: &str| std::fs::read_dir(path.join(directory)).unwrap().count();
    for view in views {
        assert!(view.name.is_some(), "{view:?}");
        book.remove(book.find(view.called()).unwrap().own().unwrap())
            .unwrap();
    }
    assert_eq!([entries("instances"), entries("pending")], [0; 2]);
    // A name may be left of whoever was killed between taking it and its instance: it is free.
    for name in std::fs::read_dir(path.join("names")).unwrap() {
        let name = name.unwrap().file_name().into_string().unwrap();
        let wanted = name.parse().unwrap();
        let asked = client::asked();
        let (made, _) = book.create(Some(&wanted), asked).unwrap();
        book.remove(made.own().unwrap()).unwrap();
    }
    assert_eq!(entries("names"), 0);
}
