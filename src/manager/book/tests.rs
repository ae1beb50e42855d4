//! What the book says of instances that are made, named, run and removed.

use super::*;
use crate::{End, InstanceId, LogLimits, Moment, State};
use kvmlet_spec::supervision::RestartPolicy;
use std::process::Command;
use std::time::{Duration, Instant};

fn book() -> (tempfile::TempDir, Book) {
    let place = tempfile::tempdir().unwrap();
    let book = Book::at(&place.path().join("book")).unwrap();
    (place, book)
}

fn asked() -> Asked {
    Asked {
        id: InstanceId::random().unwrap(),
        created: Moment::now(),
        image: "nginx.erofs".into(),
        image_id: None,
        service: crate::Service::default(),
        command: vec!["nginx".into()],
        config: serde_json::json!({"memory": "256M"}),
        restart: RestartPolicy::Always,
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

fn make(book: &Book, text: &str) -> Instance {
    book.create(Some(&name(text)), asked()).unwrap().0
}

fn entries(book: &Book, directory: &str) -> Vec<String> {
    let mut names = book
        .directory
        .existing_subdirectory(directory)
        .unwrap()
        .names()
        .unwrap();
    names.sort();
    names
}

#[test]
fn what_was_asked_is_read_back() {
    let (place, book) = book();
    let wanted = asked();
    let (instance, called) = book.create(Some(&name("web")), wanted.clone()).unwrap();
    assert_eq!(called, name("web"));
    assert_eq!(instance.asked().unwrap(), wanted);
    // By another process, say.
    let book = Book::at(&place.path().join("book")).unwrap();
    let listing = book.list().unwrap();
    let [view] = &listing.instances[..] else {
        panic!("{listing:?}");
    };
    assert_eq!((&view.asked, &view.name), (&wanted, &Some(name("web"))));
    assert_eq!(
        (view.state, &view.end),
        (State::Created, &Some(End::NeverRan))
    );
    assert!(entries(&book, "pending").is_empty());
}

#[test]
fn instances_are_found_as_docker_finds_them() {
    let (_place, book) = book();
    let web = make(&book, "web").id().clone();
    let found = |reference: &str| book.find(reference).map(|found| found.id().clone());
    for reference in ["web", web.as_str(), web.short(), &web.as_str()[..5]] {
        assert_eq!(found(reference).unwrap(), web, "{reference}");
    }
    // A name comes before the beginning of an id.
    let other = make(&book, &web.as_str()[..3]).id().clone();
    assert_eq!(found(&web.as_str()[..3]).unwrap(), other);
    for reference in [
        "",
        "we",
        "webs",
        "../web",
        "WEB",
        "x\n",
        &"0".repeat(64),
        &"f".repeat(65),
    ] {
        assert!(
            matches!(found(reference), Err(Error::NotFound { .. })),
            "{reference}"
        );
    }
    // Of 17 ids two begin with the same digit.
    (0..16).for_each(|_| drop(book.create(None, asked()).unwrap()));
    let mut digits = "0123456789abcdef".chars().map(String::from);
    let ambiguous =
        |digit: String| matches!(found(&digit), Err(Error::Ambiguous { count, .. }) if count > 1);
    assert!(digits.any(ambiguous));
}

#[test]
fn a_name_has_one_instance() {
    let (_place, book) = book();
    let web = make(&book, "web").id().clone();
    let error = book.create(Some(&name("web")), asked()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the name `web` is taken by instance {}", web.short())
    );
    make(&book, "db");
    assert!(matches!(
        book.rename("db", &name("web")),
        Err(Error::NameTaken { .. })
    ));
    assert!(matches!(
        book.rename("none", &name("x1")),
        Err(Error::NotFound { .. })
    ));
    assert_eq!(book.rename("web", &name("front")).unwrap(), web);
    assert_eq!(book.rename("front", &name("front")).unwrap(), web);
    assert_eq!(book.name_of(&web).unwrap(), Some(name("front")));
    assert!(matches!(book.find("web"), Err(Error::NotFound { .. })));
    book.rename("db", &name("web")).unwrap();
    assert_eq!(entries(&book, "names"), ["front", "web"]);
    let ids = entries(&book, "instances");
    assert_eq!(ids.len(), 2);
}

#[test]
fn a_name_that_is_left_over_is_free() {
    let (_place, book) = book();
    let web = make(&book, "web");
    book.names.take(&name("web")).unwrap();
    let gone = InstanceId::random().unwrap();
    book.names.give(&name("web"), &gone).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", book.directory.path().join("names/odd")).unwrap();
    std::fs::write(book.directory.path().join("names/file"), "").unwrap();
    // The instance is there all the same, and can be named again.
    let listing = book.list().unwrap();
    assert_eq!(listing.instances[0].called(), web.id().short());
    for text in ["web", "odd", "file"] {
        assert!(
            matches!(book.find(text), Err(Error::NotFound { .. })),
            "{text}"
        );
        book.rename(web.id().short(), &name(text)).unwrap();
        assert_eq!(book.find(text).unwrap().id(), web.id());
    }
}

#[test]
fn an_instance_has_one_owner_and_the_truth_is_told_of_it() {
    let (_place, book) = book();
    let web = make(&book, "web");
    let state = || book.find("web").unwrap().state().unwrap();
    let in_use = |what: &str| {
        let error = web.own().unwrap_err().to_string();
        assert_eq!(error, format!("instance `{}` is {what}", web.id().short()));
    };
    let owned = web.own().unwrap();
    assert_eq!(state(), State::Created);
    in_use("in use by another command");
    let mut keeper = owned.begin().unwrap();
    assert_eq!(state(), State::Created);
    keeper.running().unwrap();
    assert_eq!(state(), State::Running);
    in_use("running");
    let started = keeper.record().started;
    keeper.paused().unwrap();
    assert_eq!(state(), State::Paused);
    keeper.running().unwrap();
    assert_eq!(keeper.record().started, started, "a pause is not a start");
    keeper.restarting(7, Some("it fell over")).unwrap();
    assert_eq!(state(), State::Restarting);
    keeper.running().unwrap();
    let owned = keeper.end(3, None).unwrap();
    assert_eq!(state(), State::Exited);
    let view = web.view(None).unwrap();
    let Some(End::Told(outcome)) = view.end else {
        panic!("{view:?}");
    };
    assert_eq!((outcome.code, outcome.run, view.record.restarts), (3, 1, 1));
    // The owner is still the owner: it may start it again at once.
    in_use("in use by another command");
    drop(owned.begin().unwrap());
    assert_eq!(state(), State::Dead);
    assert_eq!(web.view(None).unwrap().end, Some(End::Killed));
    drop(web.own().unwrap().begin().unwrap().end(0, None).unwrap());
    assert_eq!(state(), State::Exited);
}

#[test]
fn the_end_of_a_run_is_waited_for() {
    let (_place, book) = book();
    let web = make(&book, "web");
    assert_eq!(web.wait().unwrap(), End::NeverRan);
    let mut keeper = web.own().unwrap().begin().unwrap();
    keeper.running().unwrap();
    let since = Instant::now();
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| book.find("web").unwrap().wait()))
            .collect();
        std::thread::sleep(Duration::from_millis(50));
        // They are in nobody's way.
        keeper.end(9, None).unwrap();
        for waiter in waiters {
            let end = waiter.join().unwrap().unwrap();
            assert!(
                matches!(&end, End::Told(outcome) if outcome.code == 9),
                "{end}"
            );
        }
    });
    assert!(since.elapsed() >= Duration::from_millis(50));
    // One that is removed as it ends, too.
    let keeper = web.own().unwrap().begin().unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| web.wait());
        std::thread::sleep(Duration::from_millis(20));
        book.remove(keeper.end(4, None).unwrap()).unwrap();
        let end = waiter.join().unwrap().unwrap();
        assert!(
            matches!(&end, End::Told(outcome) if outcome.code == 4),
            "{end}"
        );
    });
}

#[test]
fn what_is_removed_leaves_nothing() {
    let (_place, book) = book();
    let (web, late) = (make(&book, "web"), book.find("web").unwrap());
    std::fs::create_dir(web.directory().path().join("more")).unwrap();
    std::fs::write(web.directory().path().join("more/file"), "x").unwrap();
    let keeper = web.own().unwrap().begin().unwrap();
    assert!(web.own().is_err());
    book.remove(keeper.end(0, None).unwrap()).unwrap();
    for directory in ["instances", "names", "pending"] {
        assert!(entries(&book, directory).is_empty(), "{directory}");
    }
    // Who has opened it before cannot own what is gone, and hears of its end.
    assert!(matches!(late.own(), Err(Error::NotFound { .. })));
    assert!(matches!(late.wait_for_run().unwrap(), End::Told(told) if told.code == 0));
    assert!(matches!(
        book.find(web.id().as_str()),
        Err(Error::NotFound { .. })
    ));
    make(&book, "web");
}

#[test]
fn what_cannot_be_read_is_told_and_can_be_removed() {
    let (_place, book) = book();
    let (web, db) = (make(&book, "web"), make(&book, "db"));
    let spoil = |instance: &Instance, file: &str| {
        let path = instance.directory().path().join(file);
        let mut text = std::fs::read(&path).unwrap();
        text[20] ^= 1;
        std::fs::write(path, text).unwrap();
    };
    spoil(&web, "spec.json");
    spoil(&db, "state");
    std::fs::remove_file(make(&book, "x1").directory().path().join("lock")).unwrap();
    // A copy of a directory within the book is not one more owner of the id.
    let copy = InstanceId::random().unwrap();
    let good = make(&book, "good");
    let path = good.directory().path();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(path)
        .arg(path.with_file_name(copy.as_str()))
        .status();
    assert!(copied.unwrap().success());
    let listing = book.list().unwrap();
    let mut damaged: Vec<&str> = listing
        .damaged
        .iter()
        .map(|one| one.name.as_ref().map_or("copy", Name::as_str))
        .collect();
    damaged.sort_unstable();
    assert_eq!(damaged, ["copy", "db", "web", "x1"]);
    assert_eq!(listing.instances.len(), 1);
    assert!(db.own().is_err());
    for reference in ["web", "db", "x1", copy.as_str()] {
        book.remove_damaged(reference).unwrap();
    }
    let listing = book.list().unwrap();
    assert!(listing.damaged.is_empty() && listing.instances.len() == 1);
    // What somebody has is not.
    let _owned = good.own().unwrap();
    assert!(matches!(
        book.remove_damaged("good"),
        Err(Error::InUse { .. })
    ));
}

#[test]
fn a_copied_book_does_not_give_two_owners() {
    let (place, book) = book();
    let (web, db) = (make(&book, "web"), make(&book, "db"));
    let mut keeper = web.own().unwrap().begin().unwrap();
    keeper.running().unwrap();
    db.own().unwrap().begin().unwrap().end(5, None).unwrap();
    let copy = place.path().join("copy");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(book.directory.path())
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    let other = Book::at(&copy).unwrap();
    let copied = other.find("web").unwrap();
    let view = copied.view(None).unwrap();
    assert_eq!((view.state, view.end), (State::Dead, Some(End::Copied)));
    let error = copied.own().unwrap().begin().unwrap_err().to_string();
    assert!(
        error.contains(&format!("runs as process {}", std::process::id())),
        "{error}"
    );
    // What had ended is a book of its own from then on, and so is what runs no more.
    let end = other.find("db").unwrap().view(None).unwrap().end;
    assert!(matches!(end, Some(End::Told(outcome)) if outcome.code == 5));
    drop(other.find("db").unwrap().own().unwrap().begin().unwrap());
    assert_eq!(web.state().unwrap(), State::Running);
}

#[test]
fn after_a_restart_of_the_host_nothing_runs() {
    let (_place, book) = book();
    let web = make(&book, "web");
    let mut keeper = web.own().unwrap().begin().unwrap();
    keeper.running().unwrap();
    let mut record = keeper.record().clone();
    record.keeper.as_mut().unwrap().boot = "another".into();
    let mut slots =
        crate::slots::Slots::of(web.directory().open_or_make("state").unwrap()).unwrap();
    slots.write(&record).unwrap();
    drop(keeper);
    let view = web.view(None).unwrap();
    assert_eq!(
        (view.state, view.end),
        (State::Dead, Some(End::HostRestarted))
    );
    web.own().unwrap().begin().unwrap();
}

#[test]
fn two_hundred_instances_are_listed_in_no_time() {
    let (_place, book) = book();
    let mut first = Duration::MAX;
    let mut last = Duration::MAX;
    let mut owners = Vec::new();
    for number in 0..200 {
        let since = Instant::now();
        let instance = make(&book, &format!("vm{number}"));
        let mut keeper = instance.own().unwrap().begin().unwrap();
        keeper.running().unwrap();
        let took = since.elapsed();
        match number {
            0..20 => first = first.min(took),
            180.. => last = last.min(took),
            _ => {}
        }
        owners.push(keeper);
    }
    let list = || {
        let since = Instant::now();
        let listing = book.list().unwrap();
        assert!(
            listing
                .instances
                .iter()
                .all(|view| view.state == State::Running)
        );
        assert_eq!(listing.instances.len(), 200);
        since.elapsed()
    };
    let listed = (0..5).map(|_| list()).min().unwrap();
    println!("list {listed:?}; made and begun: {first:?} of the first 20, {last:?} of the last");
    // Of an optimized build a fifth is expected.
    assert!(listed < Duration::from_millis(100), "{listed:?}");
}

#[test]
fn what_is_removed_meanwhile_is_not_found() {
    let (_place, book) = book();
    let instance = make(&book, "web");
    book.remove(instance.own().unwrap()).unwrap();
    for found in [instance.asked().map(drop), instance.view(None).map(drop)] {
        assert!(matches!(found, Err(Error::NotFound { .. })), "{found:?}");
    }
}
