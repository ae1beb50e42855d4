//! Events of many writers.

use super::*;
use std::os::fd::AsFd;
use std::time::Duration;

/// Of what is to come soon.
const DEADLINE: Duration = Duration::from_secs(120);

fn book() -> (tempfile::TempDir, Book) {
    let place = tempfile::tempdir().unwrap();
    let book = Book::at(&place.path().join("book")).unwrap();
    (place, book)
}

fn all(book: &Book, selection: EventSelection) -> Vec<Event> {
    let mut reader = EventReader::open(book, selection).unwrap();
    std::iter::from_fn(|| reader.next().unwrap()).collect()
}

#[test]
fn events_are_numbered_and_selected() {
    let (_place, book) = book();
    let id = InstanceId::random().unwrap();
    let name: Name = "web".parse().unwrap();
    let mut later = EventReader::open(&book, EventSelection::New).unwrap();
    assert_eq!(book.tell("create", &id, Some(&name), []).unwrap(), 1);
    let mut new = EventReader::open(&book, EventSelection::New).unwrap();
    assert_eq!(
        book.tell("die", &id, None, [("exitCode", "7".into())])
            .unwrap(),
        2
    );
    let events = all(&book, EventSelection::All);
    assert_eq!(events.len(), 2);
    assert_eq!(
        (events[0].name.as_ref(), &*events[0].event),
        (Some(&name), "create")
    );
    assert_eq!(events[1].attributes["exitCode"], "7");
    assert_eq!(all(&book, EventSelection::After(1)), events[1..]);
    assert_eq!(
        all(&book, EventSelection::Since(events[1].time)),
        events[1..]
    );
    assert_eq!(new.next().unwrap().as_ref(), events.get(1));
    assert_eq!(later.next().unwrap().as_ref(), events.first());
}

#[test]
fn many_write_and_one_follows() {
    let (_place, book) = book();
    let mut reader = EventReader::open(&book, EventSelection::All).unwrap();
    let (end, ended) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let id = InstanceId::random().unwrap();
                    for _ in 0..50 {
                        book.tell("start", &id, None, []).unwrap();
                    }
                })
            })
            .collect();
        // What ends the waiting when all has come does so at a deadline, too: a reader that misses one event would wait for ever.
        let (all, done) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            let _ = done.recv_timeout(DEADLINE);
            drop(ended);
        });
        let read = |reader: &mut EventReader| reader.wait(end.as_fd()).unwrap();
        let sequence: Vec<_> = std::iter::from_fn(|| read(&mut reader))
            .take(200)
            .map(|event| event.sequence)
            .collect();
        assert_eq!(sequence, (1..=200).collect::<Vec<_>>());
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        drop(all);
        assert_eq!(read(&mut reader), None);
    });
}

#[test]
fn numbers_go_on_over_files_and_broken_lines() {
    let (place, book) = book();
    let id = InstanceId::random().unwrap();
    let filler = || [("filler", "x".repeat(15_000))];
    for number in 1..=200 {
        assert_eq!(book.tell("start", &id, None, filler()).unwrap(), number);
    }
    let path = place.path().join("book/events");
    let sizes = [&path, &path.with_extension("1")].map(|path| path.metadata().unwrap().len());
    assert!(sizes.iter().all(|size| *size <= 1 << 20), "{sizes:?}");
    assert!(!path.with_extension("2").exists());
    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, b"{\"sequence\":999,").unwrap();
    assert_eq!(book.tell("start", &id, None, []).unwrap(), 201);
    assert_eq!(all(&book, EventSelection::After(200)).len(), 1);
    assert!(
        book.tell("start", &id, None, [("long", "x".repeat(20_000))])
            .is_err()
    );
    assert_eq!(book.tell("start", &id, None, []).unwrap(), 202);
}
