//! Stores in temporary directories: what is kept, what is removed, and what is left of accidents.

mod accidents;
mod garbage;

use super::*;
use crate::layer::{LIMITS, Limits};
use crate::mounted;
use crate::tarball::Tarball;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Place {
    place: tempfile::TempDir,
    store: Store,
}

fn place() -> Place {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("images")).unwrap();
    Place { place, store }
}

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// A configuration with these layers; `more` tells one from another.
fn config(layers: &[Digest], more: &str) -> Vec<u8> {
    let layers: Vec<_> = layers.iter().map(|it| format!("\"{it}\"")).collect();
    let layers = layers.join(",");
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Labels":{{"more":"{more}"}}}},
        "rootfs":{{"type":"layers","diff_ids":[{layers}]}}}}"#
    )
    .into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer with a file of its own.
fn archive(content: &str) -> Vec<u8> {
    let mut made = Tarball::default();
    made.directory("etc", 0o755, 0);
    made.file(&format!("etc/{content}"), content.as_bytes());
    made.file("big", &content.repeat(3000).into_bytes());
    made.finish()
}

impl Place {
    fn layer(&self, archive: &[u8]) -> StoredLayer {
        self.store.add_layer(archive, &LIMITS).unwrap()
    }

    /// An image of layers with these contents.
    fn image(&self, contents: &[&str], more: &str, names: &[&str]) -> StoredImage {
        let layers: Vec<_> = contents.iter().map(|it| self.layer(&archive(it))).collect();
        let digests: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
        let names: Vec<_> = names.iter().map(|text| name(text)).collect();
        let json = config(&digests, more);
        self.store.add_image(&json, &layers, &names).unwrap()
    }

    /// The names of files in a directory of the store.
    fn files(&self, directory: &str) -> Vec<String> {
        let path = self.place.path().join("images").join(directory);
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// The disk that a guest sees.
fn disk(image: &Image) -> Vec<u8> {
    let mut disk = Vec::new();
    for extent in &image.extents {
        assert_eq!((extent.offset % 4096, extent.length % 4096), (0, 0));
        assert!(extent.length > 0 && extent.path.is_absolute());
        let mut part = vec![0; extent.length as usize];
        let file = fs::File::open(&extent.path).unwrap();
        file.read_exact_at(&mut part, extent.offset).unwrap();
        disk.extend(part);
    }
    disk
}

#[test]
fn an_image_is_found_by_its_names_and_its_id_and_mounts() {
    let place = place();
    let mut base = Tarball::default();
    base.directory("etc", 0o750, 7).file("etc/gone", b"gone");
    base.file("etc/kept", &[7; 9000])
        .link(b'1', "link", "etc/kept");
    let mut upper = Tarball::default();
    upper.file("etc/.wh.gone", b"").file("etc/new", b"new");
    upper.link(b'1', "below", "etc/kept");
    let empty = Tarball::default();
    let archives = [base.finish(), empty.finish(), upper.finish()];
    let layers: Vec<_> = archives
        .iter()
        .map(|archive| place.layer(&gzip(archive)))
        .collect();
    for (layer, archive) in layers.iter().zip(&archives) {
        assert_eq!(layer.diff_id, Digest::of(archive));
        assert_eq!(layer.archive_length, archive.len() as u64);
        let mut again = Vec::new();
        layer.archive().unwrap().read_to_end(&mut again).unwrap();
        assert!(again == *archive, "the same archive");
    }
    let digests: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
    let json = config(&digests, "");
    let names = [name("nginx:1"), name("nginx").at_digest(Digest([5; 32]))];
    let added = place.store.add_image(&json, &layers, &names).unwrap();
    assert_eq!(added.image.id, Digest::of(&json));
    let id = added.image.id.to_string();
    let by_digest = names[1].to_string();
    for text in [
        "nginx:1",
        "docker.io/library/nginx:1",
        &id,
        &id[7..],
        &id[7..8],
        &by_digest,
    ] {
        let found = place.store.find(text).unwrap().unwrap();
        assert_eq!(
            (found.image.id, &found.image.json),
            (added.image.id, &json),
            "{text}"
        );
        assert_eq!(found.image.names, names);
        assert_eq!(found.image.extents, added.image.extents);
    }
    for text in [
        "nginx",
        "nginx:2",
        "x",
        "",
        "sha256:",
        &format!("{}g", &id[7..12]),
    ] {
        assert!(place.store.find(text).unwrap().is_none(), "{text}");
    }
    // The empty layer has no extent.
    assert_eq!(added.image.extents.len(), 3);
    let changes: Vec<_> = layers
        .iter()
        .map(|layer| layer.changes().unwrap())
        .collect();
    let tree = crate::merge::merge(&changes).unwrap();
    let blobs: Vec<_> = layers
        .iter()
        .map(|layer| {
            let path = place
                .place
                .path()
                .join("images/layers")
                .join(layer.diff_id.hex());
            fs::read(path).unwrap()[..layer.data_length as usize].to_vec()
        })
        .collect();
    mounted::check(&disk(&added.image), &tree, &blobs);
}

#[test]
fn the_same_input_makes_the_same_files() {
    let (first, second) = (place(), place());
    for place in [&first, &second] {
        place.image(&["a", "b"], "", &["x", "y"]);
        // Added again, all is there.
        place.image(&["a", "b"], "", &["x"]);
    }
    let all = |place: &Place| -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        for directory in ["layers", "images", ""] {
            for name in place.files(directory) {
                let path = place
                    .place
                    .path()
                    .join("images")
                    .join(directory)
                    .join(&name);
                if path.is_file() {
                    all.push((name, fs::read(path).unwrap()));
                }
            }
        }
        all
    };
    assert!(all(&first) == all(&second));
    assert_eq!(
        (first.files("layers").len(), first.files("images").len()),
        (2, 1)
    );
    // Compressed otherwise, it is the same layer.
    first.layer(&gzip(&archive("a")));
    assert!(all(&first) == all(&second));
}

/// Counts who reads it.
struct Counted<'a>(&'a [u8], &'a AtomicUsize);

impl Read for Counted<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        // So that others come meanwhile.
        std::thread::sleep(std::time::Duration::from_millis(2));
        self.1
            .fetch_add(bytes.len().min(self.0.len()), Ordering::SeqCst);
        self.0.read(bytes)
    }
}

#[test]
fn eight_who_want_a_layer_read_it_once() {
    let place = place();
    let archive = archive("shared");
    let digest = Digest::of(&archive);
    let read = AtomicUsize::new(0);
    let root = place.place.path().join("images");
    let add = || {
        let store = Store::open(&root).unwrap();
        let layer = match store.begin_layer(&digest).unwrap() {
            Begun::There(layer) => layer,
            Begun::Yours(addition) => addition.add(Counted(&archive, &read), &LIMITS).unwrap(),
        };
        let json = config(&[layer.diff_id], "");
        store
            .add_image(&json, &[layer], &[name("x")])
            .unwrap()
            .image
            .id
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(add)).collect();
        for one in all {
            one.join().unwrap();
        }
    });
    assert_eq!(read.load(Ordering::SeqCst), archive.len());
    assert_eq!(
        (place.files("layers").len(), place.files("images").len()),
        (1, 1)
    );
    assert_eq!(place.store.check().unwrap().layers, 1);
}

#[test]
fn what_is_not_what_it_should_be_leaves_nothing() {
    let place = place();
    let wanted = Digest([3; 32]);
    let begin = || match place.store.begin_layer(&wanted).unwrap() {
        Begun::Yours(addition) => addition,
        Begun::There(_) => panic!("it is not there"),
    };
    let made = archive("x");
    let told = |result: Result<StoredLayer, Error>| {
        let error = result.unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    };
    let other = told(begin().add(&made[..], &LIMITS));
    assert!(other.contains("should be sha256:0303") && other.contains(&Digest::of(&made).hex()));
    let cut = told(begin().add(&gzip(&made)[..100], &LIMITS));
    assert!(cut.starts_with("layer sha256:0303"), "{cut}");
    let text = told(begin().add(
        &b"no archive at all, but long enough for a header. ".repeat(20)[..],
        &LIMITS,
    ));
    assert!(text.contains("header at byte 0"), "{text}");
    let small = Limits {
        length: 1000,
        ..LIMITS
    };
    assert!(told(begin().add(&made[..], &small)).contains("more than 1000 bytes"));
    // As many zeros behind the end as anybody wants are a note of some bytes.
    let mut long = made.clone();
    long.resize(long.len() + (64 << 20), 0);
    let layer = place.layer(&gzip(&long));
    assert_eq!(layer.archive_length, long.len() as u64);
    let length = fs::metadata(
        place
            .place
            .path()
            .join("images/layers")
            .join(layer.diff_id.hex()),
    );
    assert!(length.unwrap().len() < 20_000);
    let layers = [place.layer(&made)];
    let image = |json: &[u8]| {
        place
            .store
            .add_image(json, &layers, &[])
            .unwrap_err()
            .to_string()
    };
    assert!(image(b"{}").contains("names 0 layers"));
    assert!(image(b"[").contains("not an image's configuration"));
    assert!(image(&config(&[wanted], "")).contains("names 1 layers"));
    let mut link = Tarball::default();
    link.link(b'1', "a", "nowhere");
    let layers = [place.layer(&link.finish())];
    let error = place
        .store
        .add_image(&config(&[layers[0].diff_id], ""), &layers, &[]);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("hard link to `/nowhere`")
    );
    assert!(place.files("images").is_empty());
    assert_eq!(place.files("layers").len(), 3);
}
