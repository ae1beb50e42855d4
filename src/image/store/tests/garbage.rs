//! Names that move, images that are in use, and what goes.

use super::*;

/// Nobody counts on anything.
const FREE: &dyn Fn(&Image) -> bool = &|_| false;

#[test]
fn names_move_and_what_has_none_is_pruned() {
    let place = place();
    let old = place
        .image(&["base", "old"], "", &["app", "app:1"])
        .image
        .id;
    let new = place.image(&["base", "new"], "", &["app"]).image.id;
    let found = |text: &str| place.store.find(text).unwrap().map(|it| it.image.id);
    assert_eq!((found("app"), found("app:1")), (Some(new), Some(old)));
    place.store.tag(&new, &name("app:1")).unwrap();
    assert_eq!(
        place.store.find(&old.hex()).unwrap().unwrap().image.names,
        []
    );
    assert_eq!(place.store.images().unwrap().len(), 2);
    assert_eq!(place.files("layers").len(), 3);
    let removed = place.store.prune(false, FREE).unwrap();
    assert_eq!((removed.images, removed.layers.len()), (vec![old], 1));
    assert!(removed.bytes > 8192);
    assert_eq!(found("app"), Some(new));
    // Those with names go when all are to.
    assert_eq!(place.store.prune(false, FREE).unwrap(), Removed::default());
    let keep: &dyn Fn(&Image) -> bool = &|image| image.names.is_empty();
    assert_eq!(place.store.prune(true, keep).unwrap().names.len(), 2);
    for directory in ["layers", "images"] {
        assert!(place.files(directory).is_empty());
    }
    let error = place.store.tag(&new, &name("x")).unwrap_err().to_string();
    assert_eq!(error, format!("there is no image `{new}`"));
}

#[test]
fn what_is_in_use_stays() {
    let place = place();
    let held = place.image(&["base", "a"], "", &["held"]);
    place.image(&["base", "b"], "", &["free"]);
    let kept = place.image(&["base", "c"], "", &["kept"]).image.id;
    let keep: &dyn Fn(&Image) -> bool = &|image| image.id == kept;
    // A layer that somebody is adding to an image.
    let early = place.layer(&archive("early"));
    // A disk of a running VM has a lock of the same kind, and nothing else.
    let disk = fs::File::open(&held.image.extents[0].path).unwrap();
    assert!(kvmlet_sys::byte_lock::try_lock_all(&disk, true).unwrap());
    let id = held.image.id;
    for it in [Some(held), None] {
        let error = place.store.remove("held", false, FREE).unwrap_err();
        assert!(
            matches!(error, Error::InUse(found) if found == id),
            "{error}"
        );
        assert!(place.store.remove(&id.hex(), true, FREE).is_err());
        drop(it);
    }
    assert!(matches!(
        place.store.remove("kept", false, keep),
        Err(Error::InUse(_))
    ));
    let removed = place.store.prune(true, keep).unwrap();
    assert_eq!(
        (removed.names, removed.layers.len()),
        (vec![name("free")], 1)
    );
    assert_eq!(place.files("layers").len(), 4);
    assert!(place.store.find("held").unwrap().is_some());
    // By force its name goes, and the image stays as long as it is needed.
    let removed = place.store.remove("held", true, FREE).unwrap();
    assert_eq!((removed.names.len(), removed.images.len()), (1, 0));
    drop((disk, early));
    let removed = place.store.prune(false, keep).unwrap();
    assert_eq!((removed.images, removed.layers.len()), (vec![id], 2));
    assert_eq!(place.files("layers").len(), 2);
}

#[test]
fn names_go_as_with_docker() {
    let place = place();
    let digest = name("a").at_digest(Digest([1; 32])).to_string();
    let names = ["a:1", "a:2", "b:1", &digest];
    let id = place.image(&["x"], "", &names).image.id;
    let remove = |text: &str, force| {
        let removed = place.store.remove(text, force, FREE)?;
        let names: Vec<_> = removed.names.iter().map(ToString::to_string).collect();
        Ok::<_, Error>((names, removed.images.len(), removed.layers.len()))
    };
    let error = remove(&id.hex()[..12], false).unwrap_err();
    assert!(error.to_string().ends_with("has 3 names"), "{error}");
    assert_eq!(remove("a:2", false).unwrap(), (vec!["a:2".into()], 0, 0));
    // Where it came from goes with the repository's last tag.
    assert_eq!(
        remove("a:1", false).unwrap(),
        (vec!["a:1".into(), digest], 0, 0)
    );
    assert!(matches!(remove("a:1", false), Err(Error::NoImage(text)) if text == "a:1"));
    assert_eq!(remove("b:1", false).unwrap(), (vec!["b:1".into()], 1, 1));
    assert!(place.store.images().unwrap().is_empty());
    // An id takes all names of one repository, and by force all.
    let id = place.image(&["x"], "", &["a:1", "a:2"]).image.id;
    assert_eq!(remove(&id.hex(), false).unwrap().0.len(), 2);
    let id = place.image(&["x"], "", &["a:1", "b:2"]).image.id;
    assert_eq!(remove(&id.to_string(), true).unwrap().0.len(), 2);
    // Two whose ids begin alike.
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(place.image(&["x"], &number.to_string(), &[]).image.id.hex());
    }
    ids.sort();
    let pair = ids.windows(2).find(|it| it[0][..1] == it[1][..1]).unwrap();
    let error = remove(&pair[0][..1], false).unwrap_err().to_string();
    assert!(error.contains("is the beginning of"), "{error}");
}

/// A prune waits a moment for who has a layer, and that one may make an image of it then.
#[test]
fn a_layer_of_which_an_image_was_just_made_stays() {
    let place = place();
    for round in 0..5 {
        let layers = [place.layer(&archive(&format!("layer {round}")))];
        let json = config(&[layers[0].diff_id], "");
        std::thread::scope(|scope| {
            let prune = scope.spawn(|| place.store.prune(false, &|_| false).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(10));
            // Without a name, which would be waited for until the prune has ended.
            drop(place.store.add_image(&json, &layers, &[]).unwrap());
            drop(layers);
            prune.join().unwrap();
        });
        let checked = place.store.check().unwrap();
        assert!(checked.broken.is_empty(), "{:?}", checked.broken);
    }
}
