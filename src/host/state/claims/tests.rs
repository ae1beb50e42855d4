//! Who has noted what.

use super::*;

fn claims(place: &Path) -> Claims<u32> {
    let runtime = RuntimeDirectory::at(&place.join("runtime")).unwrap();
    Claims::lock(&runtime, "numbers").unwrap()
}

#[test]
fn a_claim_is_stale_when_its_owner_is_gone() {
    let place = tempfile::tempdir().unwrap();
    let claims = claims(place.path());
    let first = claims.claim("first", 1).unwrap();
    let second = claims.claim("second", 2).unwrap();
    let (mut live, stale) = claims.all().unwrap();
    live.sort_unstable();
    assert_eq!((live, stale.len()), (vec![1, 2], 0));
    // The lock goes, the file stays: as after a kill.
    drop(first);
    let (live, stale) = claims.all().unwrap();
    assert_eq!(live, [2]);
    assert_eq!(stale, [("first".into(), Some(1))]);
    // A name can be taken again, unless its owner lives.
    assert!(claims.claim("second", 4).is_err());
    assert_eq!(claims.all().unwrap().0, [2], "and its note is as it was");
    let again = claims.claim("first", 3).unwrap();
    second.release();
    again.release();
    assert_eq!(claims.all().unwrap(), (vec![], vec![]));
}

#[test]
fn what_is_left_over_is_seen_among_as_many_as_are_asked_for() {
    let place = tempfile::tempdir().unwrap();
    let claims = claims(place.path());
    let mut held: Vec<_> = (0..5)
        .map(|number| claims.claim(&number.to_string(), number).unwrap())
        .collect();
    let found = |most, without: &str| claims.has_leftover(most, |name| name == without).unwrap();
    assert!(!found(5, "") && !found(2, ""));
    held.remove(3);
    assert!(found(5, "") && found(100, ""));
    assert!(!found(5, "3"), "it is known to be another's");
    held.clear();
    assert!(found(1, ""));
}

#[test]
fn a_note_that_cannot_be_written_is_not_left() {
    /// Nothing that a full disk would take.
    struct Unwritten;
    impl Serialize for Unwritten {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no space left on device"))
        }
    }
    impl<'de> serde::Deserialize<'de> for Unwritten {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Self)
        }
    }
    let place = tempfile::tempdir().unwrap();
    let runtime = RuntimeDirectory::at(place.path()).unwrap();
    let claims = Claims::<Unwritten>::lock(&runtime, "notes").unwrap();
    assert!(claims.claim("x", Unwritten).is_err());
    assert_eq!(claims.directory().names().unwrap(), ["lock"]);
}

#[test]
fn what_cannot_be_read_is_left_over_all_the_same() {
    let place = tempfile::tempdir().unwrap();
    let claims = claims(place.path());
    claims.directory().write("x.claim", b"{").unwrap();
    claims.directory().write("other", b"1").unwrap();
    assert_eq!(claims.all().unwrap().1, [("x".into(), None)]);
}

#[test]
fn who_locks_others_out_is_named() {
    let error = |holder| {
        let path = PathBuf::from("/run/kvmlet/ledger/lock");
        let error = Error::Busy { path, holder };
        format!("{error}\n{}", error.help().unwrap())
    };
    let name = Some("kvmlet".into());
    assert_eq!(
        error(Some(Holder { pid: 7, name })),
        "process 7 (kvmlet) has held the lock `/run/kvmlet/ledger/lock` for 30 s\n\
         if it does not go on, end it: `kill 7`"
    );
    assert!(error(None).ends_with("`fuser /run/kvmlet/ledger/lock` tells which one"));
}

#[test]
fn what_is_not_there_is_not_made() {
    let place = tempfile::tempdir().unwrap();
    let runtime = RuntimeDirectory::at(place.path()).unwrap();
    assert!(
        Claims::<u32>::lock_existing_at_once(&runtime, "n")
            .unwrap()
            .is_none()
    );
    drop(Claims::<u32>::lock(&runtime, "n").unwrap());
    assert!(
        Claims::<u32>::lock_existing_at_once(&runtime, "n")
            .unwrap()
            .is_some()
    );
}
