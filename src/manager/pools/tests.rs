use super::*;

fn pools() -> (tempfile::TempDir, Pools, PoolNote) {
    let place = tempfile::tempdir().unwrap();
    let book = Book::at(&place.path().join("book")).unwrap();
    let note = PoolNote {
        name: "web".parse().unwrap(),
        file: "/srv/web.snapshot".into(),
        size: 3,
        made: Moment::now(),
        instances: None,
    };
    (place, Pools::of(&book).unwrap(), note)
}

#[test]
fn a_name_is_one_pools_as_long_as_that_lives() {
    let (_place, pools, note) = pools();
    let lock = pools.make(&note).unwrap();
    assert!(matches!(pools.make(&note), Err(PoolsError::Taken { .. })));
    let mut all = pools.list().unwrap();
    let found = all.pop().unwrap();
    assert_eq!((all.len(), &found.note), (0, &note));
    assert!(found.status.is_none());
    assert!(matches!(
        pools.connect(&note.name),
        Err(PoolsError::Dead { .. })
    ));
    drop(lock);
    pools.make(&note).unwrap();
    pools.remove(&note.name).unwrap();
    assert!(matches!(
        pools.remove(&note.name),
        Err(PoolsError::NotFound { .. })
    ));
    assert!(matches!(
        pools.connect(&note.name),
        Err(PoolsError::NotFound { .. })
    ));
    assert_eq!(pools.0.names().unwrap(), [GATE]);
}

/// Its instances are there, whoever fills it or not.
#[test]
fn one_of_an_image_is_there_without_a_process() {
    let (_place, pools, mut note) = pools();
    let id = crate::InstanceId::random().unwrap();
    note.instances = Some(PooledInstances::of(vec!["image".into()], "/srv".into()));
    drop(pools.make(&note).unwrap());
    let name = note.name.clone();
    assert!(matches!(pools.make(&note), Err(PoolsError::Taken { .. })));
    let filling = pools.try_fill(&name).unwrap().unwrap();
    assert!(pools.try_fill(&name).unwrap().is_none());
    let park = |note: &mut PoolNote| note.instances.as_mut().unwrap().parked.push(id.clone());
    pools.change(&name, park).unwrap();
    drop(filling);
    let has = pools.of_image(&name).unwrap().unwrap();
    let parked = has.instances.unwrap().parked;
    assert_eq!(parked, std::slice::from_ref(&id));
    let status = pools.list().unwrap().pop().unwrap().status.unwrap();
    assert_eq!((status.ready, status.taken), (1, 0));
    let left = pools.forget_image(&name).unwrap().unwrap();
    assert_eq!(left.parked, [id]);
    assert!(pools.forget_image(&name).unwrap().is_none());
    assert!(matches!(
        pools.change(&name, |_| ()),
        Err(PoolsError::NotFound { .. })
    ));
    assert_eq!(pools.0.names().unwrap(), [GATE]);
}

#[test]
fn a_lock_is_passed_on() {
    let (_place, pools, note) = pools();
    let lock = pools.make(&note).unwrap();
    let file = OwnedFd::from(lock);
    let theirs = PoolLock::inherited(file.try_clone().unwrap()).unwrap();
    drop(file);
    assert!(pools.make(&note).is_err());
    let other = File::open(pools.0.path().join("web.lock")).unwrap();
    assert!(PoolLock::inherited(other.into()).is_err());
    drop(theirs);
    pools.make(&note).unwrap();
}
