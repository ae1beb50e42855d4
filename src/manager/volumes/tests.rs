use super::*;
use crate::{Asked, InstanceId, Mount};

fn book() -> (tempfile::TempDir, Book) {
    let place = tempfile::tempdir().unwrap();
    let book = Book::at(&place.path().join("book")).unwrap();
    (place, book)
}

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

/// A volume whose disk has that many bytes.
fn create(book: &Book, text: &str, bytes: u64) -> Result<Volume, Error> {
    let volumes = Volumes::of(book)?;
    let locked = volumes.lock(book)?;
    locked.create(&name(text), &Note::new(false), |path| disk(path, bytes))
}

fn disk(path: &Path, bytes: u64) -> Result<(), Error> {
    let file = File::create_new(path).and_then(|file| file.set_len(bytes));
    file.map_err(Error::file(path))
}

/// An instance that mounts a volume.
fn mounting(book: &Book, text: &str, read_only: bool) -> (InstanceId, Asked) {
    let id = InstanceId::random().unwrap();
    let mut asked = Asked::new(id.clone(), "image");
    asked.service.mounts.push(Mount::Volume {
        name: name(text),
        target: "/data".into(),
        read_only,
        filled: true,
    });
    book.create(None, asked.clone()).unwrap();
    (id, asked)
}

#[test]
fn a_volume_is_there_whole_or_not_at_all() {
    let (_place, book) = book();
    let volumes = Volumes::of(&book).unwrap();
    let failed = volumes
        .lock(&book)
        .unwrap()
        .create(&name("data"), &Note::new(false), |path| {
            std::fs::write(path, "half").unwrap();
            Err(Error::Homeless)
        });
    assert!(matches!(failed, Err(Error::Homeless)));
    assert!(volumes.list().unwrap().is_empty());
    let made = create(&book, "data", 1 << 20).unwrap();
    assert_eq!((made.bytes, made.stored_bytes), (1 << 20, 0));
    assert!(create(&book, "data", 1).is_err());
    assert_eq!(volumes.find(&name("data")).unwrap().note, made.note);
    // What somebody has left who was killed is cleared away by the next.
    std::fs::create_dir(volumes.pending.path().join("left")).unwrap();
    create(&book, "more", 1).unwrap();
    assert!(volumes.pending.names().unwrap().is_empty());
    let names: Vec<String> = volumes
        .list()
        .unwrap()
        .iter()
        .map(|it| it.name.to_string())
        .collect();
    assert_eq!(names, ["data", "more"]);
}

#[test]
fn a_volume_grows_and_does_not_shrink() {
    let (_place, book) = book();
    let volumes = Volumes::of(&book).unwrap();
    let volume = create(&book, "data", 1 << 20).unwrap();
    let locked = volumes.lock(&book).unwrap();
    locked.grow(&volume, 2 << 20).unwrap();
    let volume = volumes.find(&name("data")).unwrap();
    assert_eq!(volume.bytes, 2 << 20);
    let error = locked.grow(&volume, 1 << 20).unwrap_err();
    assert!(error.to_string().contains("`data`"), "{error}");
}

#[test]
fn what_an_instance_has_is_not_removed() {
    let (_place, book) = book();
    let volumes = Volumes::of(&book).unwrap();
    create(&book, "data", 1).unwrap();
    let (id, _) = mounting(&book, "data", true);
    let remove = || {
        let users = Users::of(&book).unwrap();
        volumes.lock(&book).unwrap().remove(&name("data"), &users)
    };
    let error = remove().unwrap_err();
    assert!(matches!(error, Error::VolumeUsed { .. }), "{error}");
    let instance = book.find(id.as_str()).unwrap();
    book.remove(instance.own().unwrap()).unwrap();
    remove().unwrap();
    assert!(matches!(remove(), Err(Error::NoVolume { .. })));
}

#[test]
fn one_writes_or_any_number_read() {
    let (_place, book) = book();
    let running = |read_only| {
        let (id, asked) = mounting(&book, "data", read_only);
        let owned = book.find(id.as_str()).unwrap().own().unwrap();
        (owned.begin().unwrap(), id, asked)
    };
    let (_reader, id, asked) = running(true);
    let users = || Users::of(&book).unwrap();
    users().refuse_taken(&id, &asked).unwrap();
    // One that does not run takes nothing from others.
    let (writer, asked_writer) = mounting(&book, "data", false);
    users().refuse_taken(&id, &asked).unwrap();
    let error = users().refuse_taken(&writer, &asked_writer).unwrap_err();
    assert!(error.to_string().contains("reads"), "{error}");
    let (_other, other, asked_other) = running(true);
    users().refuse_taken(&other, &asked_other).unwrap();
}

#[test]
fn names_are_dockers() {
    for text in ["data", "a.b-c_1", &"a".repeat(64)] {
        assert!(text.parse::<VolumeName>().is_ok(), "{text}");
    }
    for text in ["", "d", "-d", "a/b", "../x", "a b", &"x".repeat(201)] {
        assert!(text.parse::<VolumeName>().is_err(), "{text}");
    }
    let random = VolumeName::random().unwrap();
    assert_eq!(random.as_str().parse(), Ok(random));
}

#[test]
fn a_volume_without_a_name_is_an_instances_or_gone() {
    let (_place, book) = book();
    let volumes = Volumes::of(&book).unwrap();
    let make = |locked: &LockedVolumes<'_>, text| {
        let made = locked.create(&name(text), &Note::new(true), |path| disk(path, 1));
        made.unwrap();
    };
    let names = || -> Vec<String> {
        let all = volumes.list().unwrap().into_iter();
        all.map(|volume| volume.name.to_string()).collect()
    };
    let locked = volumes.lock(&book).unwrap();
    make(&locked, "used");
    make(&locked, "failed");
    let (id, _) = mounting(&book, "used", false);
    assert_eq!(names(), ["failed", "used"]);
    drop(locked);
    assert_eq!(names(), ["used"]);

    // Who is killed lets go of the lock, and does nothing else.
    let locked = volumes.lock(&book).unwrap();
    make(&locked, "killed");
    let lock = locked._lock.try_clone().unwrap();
    std::mem::forget(locked);
    kvmlet_sys::lock::release(&lock).unwrap();
    assert_eq!(names(), ["killed", "used"]);
    drop(volumes.lock(&book).unwrap());
    assert_eq!(names(), ["used"]);

    // It may stay when its instance goes, as docker's may, until somebody prunes.
    let instance = book.find(id.as_str()).unwrap();
    book.remove(instance.own().unwrap()).unwrap();
    drop(volumes.lock(&book).unwrap());
    assert_eq!(names(), ["used"]);
}

#[test]
fn an_instance_takes_its_volumes_without_a_name_along() {
    let (_place, book) = book();
    let volumes = Volumes::of(&book).unwrap();
    for anonymous in [true, false] {
        let text = if anonymous { "without" } else { "named" };
        let locked = volumes.lock(&book).unwrap();
        let note = Note::new(anonymous);
        locked
            .create(&name(text), &note, |path| disk(path, 1))
            .unwrap();
        let (id, asked) = mounting(&book, text, false);
        drop(locked);
        let owned = || book.find(id.as_str()).unwrap().own().unwrap();
        // Who does not take it out leaves it all.
        let kept = remove_with(&book, &asked, || Err(Error::Homeless));
        assert!(matches!(kept, Err(Error::Homeless)));
        assert!(volumes.find(&name(text)).is_ok());
        // Who fails later has taken it out.
        let failed = remove_with(&book, &asked, || {
            book.remove(owned())?;
            Err(Error::Homeless)
        });
        assert!(matches!(failed, Err(Error::Homeless)));
        assert_eq!(volumes.find(&name(text)).is_ok(), !anonymous);
    }
}
