//! Archives and layouts as tools write them, and as a stranger would.

use super::*;
use crate::store::Image;
use crate::tarball::Tarball;
use std::fs;
use std::io::{Seek, Write};
use std::os::unix::fs::MetadataExt;

struct Place {
    place: tempfile::TempDir,
    store: Store,
}

fn place() -> Place {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("images")).unwrap();
    Place { place, store }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn layer(name: &str) -> Vec<u8> {
    let mut made = Tarball::default();
    made.file(name, &name.repeat(5000).into_bytes());
    made.finish()
}

fn config(layers: &[&[u8]], architecture: &str) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|it| format!("\"{}\"", Digest::of(it)))
        .collect();
    let layers = layers.join(",");
    format!(
        r#"{{"architecture":"{architecture}","os":"linux","rootfs":{{"type":"layers","diff_ids":[{layers}]}}}}"#
    )
    .into_bytes()
}

/// The files of a layout with these images: annotations, architecture, layers.
fn layout(images: &[(&str, &str, &[&[u8]])]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut blob = |bytes: Vec<u8>| {
        let (digest, size) = (Digest::of(&bytes), bytes.len());
        files.push((format!("blobs/sha256/{}", digest.hex()), bytes));
        format!(r#""digest":"{digest}","size":{size}"#)
    };
    let mut entries = Vec::new();
    for (annotations, architecture, layers) in images {
        let config = blob(config(layers, architecture));
        let layers: Vec<_> = layers
            .iter()
            .map(|it| format!("{{{}}}", blob(gzip(it))))
            .collect();
        let layers = layers.join(",");
        let manifest =
            format!(r#"{{"schemaVersion":2,"config":{{{config}}},"layers":[{layers}]}}"#);
        let manifest = blob(manifest.into_bytes());
        entries.push(format!(
            r#"{{{manifest},"platform":{{"os":"linux","architecture":"{architecture}"}},"annotations":{{{annotations}}}}}"#
        ));
    }
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        entries.join(",")
    );
    files.push(("index.json".into(), index.into_bytes()));
    files.push((
        "oci-layout".into(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    ));
    files
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut made = Tarball::default();
    for (name, bytes) in files {
        made.file(name, bytes);
    }
    made.finish()
}

impl Place {
    fn load(&self, bytes: &[u8]) -> Result<Vec<Loaded>, Error> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let bundle = Bundle::archive(file, || self.store.scratch())?;
        load(&self.store, &bundle, &add_here)
    }

    fn stored(&self, loaded: &Loaded) -> Image {
        let found = self.store.find(&loaded.id.to_string()).unwrap();
        found.unwrap().image
    }

    fn refused(&self, bytes: &[u8], part: &str) {
        let error = self.load(bytes).unwrap_err();
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(next) = cause {
            text += &format!(": {next}");
            cause = next.source();
        }
        assert!(text.contains(part), "no {part:?} in {text:?}");
    }
}

fn names(images: &[Loaded]) -> Vec<String> {
    let names = images.iter().flat_map(|it| &it.names);
    names.map(ToString::to_string).collect()
}

const NAMED: &str = r#""org.opencontainers.image.ref.name":"quay.io/team/app:1""#;
const TAGGED: &str = r#""org.opencontainers.image.ref.name":"latest""#;

#[test]
fn layouts_are_directories_or_archives() {
    let place = place();
    let (base, app) = (layer("base"), layer("app"));
    let files = layout(&[
        (NAMED, "amd64", &[&base, &app]),
        (TAGGED, "amd64", &[&base]),
    ]);
    let directory = place.place.path().join("layout");
    for (name, bytes) in &files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let whole = archive(&files);
    let from_directory = load(&place.store, &Bundle::Directory(directory), &add_here).unwrap();
    for images in [
        from_directory,
        place.load(&whole).unwrap(),
        place.load(&gzip(&whole)).unwrap(),
    ] {
        assert_eq!(names(&images), ["quay.io/team/app:1"]);
        assert_eq!(
            (images.len(), place.stored(&images[0]).extents.len()),
            (2, 3)
        );
        assert_eq!(images[1].id, Digest::of(&config(&[&base], "amd64")));
    }
    // A pipe, as `load` reads it.
    let (read, mut write) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || write.write_all(&whole).unwrap());
        let file = fs::File::from(std::os::fd::OwnedFd::from(read));
        let bundle = Bundle::archive(file, || place.store.scratch()).unwrap();
        assert_eq!(load(&place.store, &bundle, &add_here).unwrap().len(), 2);
    });
}

#[test]
fn the_platform_is_the_guests() {
    let (place, one) = (place(), layer("one"));
    let both = layout(&[("", "arm64", &[&one]), ("", "amd64", &[&one])]);
    let images = place.load(&archive(&both)).unwrap();
    assert_eq!(
        place.stored(&images[0]).config.platform.architecture,
        "amd64"
    );
    let other = layout(&[("", "arm64", &[&one])]);
    place.refused(
        &archive(&other),
        "no image for linux/amd64; there is one for linux/arm64",
    );
}

#[test]
fn what_docker_saves_is_read() {
    let place = place();
    let (base, app) = (layer("base"), layer("app"));
    let (first, second) = (config(&[&base, &app], "amd64"), config(&[&base], "amd64"));
    let list = r#"[{"Config":"a.json","RepoTags":["app:1","app:2","NOT A NAME"],"Layers":["1/layer.tar","2/layer.tar"]},
        {"Config":"./b.json","RepoTags":null,"Layers":["../3/layer.tar"]}]"#;
    let mut made = Tarball::default();
    made.file("1/layer.tar", &base).file("2/layer.tar", &app);
    // As it was before docker 25.
    made.link(b'2', "3/layer.tar", "../1/layer.tar");
    made.file("a.json", &first).file("b.json", &second);
    made.file("manifest.json", list.as_bytes());
    let images = place.load(&made.finish()).unwrap();
    assert_eq!(names(&images), ["app:1", "app:2"]);
    assert_eq!(images[1].id, Digest::of(&second));
    assert_eq!(place.store.images().unwrap().len(), 2);
}

#[test]
fn what_is_hostile_is_one_error_and_leaves_nothing() {
    let place = place();
    let one = layer("one");
    let docker = |list: &str, more: &dyn Fn(&mut Tarball)| {
        let mut made = Tarball::default();
        made.file("c", &config(&[&one], "amd64")).file("l", &one);
        more(&mut made);
        made.file("manifest.json", list.as_bytes());
        made.finish()
    };
    let entry = |layer: &str| format!(r#"[{{"Config":"c","Layers":["{layer}"]}}]"#);
    let nothing: &dyn Fn(&mut Tarball) = &|_| {};
    place.refused(b"", "there are no images");
    place.refused(&layer("x"), "there are no images");
    place.refused(&[7; 600], "header at byte 0");
    place.refused(&docker("[]", nothing), "there are no images");
    place.refused(
        &docker("{}", nothing),
        "`manifest.json` is not a list of images",
    );
    place.refused(
        &docker(&entry("../../../etc/passwd"), nothing),
        "no `../../../etc/passwd` in it",
    );
    place.refused(
        &docker(r#"[{"Config":"c","Layers":[]}]"#, nothing),
        "1 layers with 0 archives",
    );
    place.refused(&docker(&entry("c"), nothing), "was not added");
    let circle: &dyn Fn(&mut Tarball) = &|made| {
        made.link(b'2', "a", "b")
            .link(b'2', "b", "a")
            .link(b'2', "out", "/etc/passwd");
    };
    place.refused(&docker(&entry("a"), circle), "no `a` in it");
    place.refused(&docker(&entry("out"), circle), "no `out` in it");
    let mut swapped = layout(&[("", "amd64", &[&one])]);
    let changed = swapped
        .iter()
        .position(|(_, bytes)| bytes.starts_with(b"{\"arch"))
        .unwrap();
    swapped[changed].1.push(b' ');
    place.refused(&archive(&swapped), "content that should be");
    let whole = archive(&layout(&[("", "amd64", &[&one])]));
    // Up to the list of images: what stands behind it is not needed.
    for length in (0..whole.len() - 3072).step_by(whole.len() / 40) {
        // Where an archive ends between two members, a file is missing.
        assert!(place.load(&whole[..length]).is_err(), "{length}");
    }
    assert!(place.store.images().unwrap().is_empty());
    place.store.prune(true, &|_| false).unwrap();
    assert_eq!(
        fs::read_dir(place.place.path().join("images/layers"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn an_image_that_is_listed_again_and_again_is_one() {
    let place = place();
    let one = layer("one");
    let list = |count: usize| {
        let entries = (0..count)
            .map(|number| format!(r#"{{"Config":"c","RepoTags":["a:{number}"],"Layers":["l"]}}"#));
        let list = format!("[{}]", entries.collect::<Vec<_>>().join(","));
        let mut made = Tarball::default();
        made.file("c", &config(&[&one], "amd64")).file("l", &one);
        made.file("manifest.json", list.as_bytes()).finish()
    };
    let images = place.load(&list(MAX_IMAGES)).unwrap();
    assert_eq!((images.len(), names(&images).len()), (1, MAX_IMAGES));
    assert_eq!(place.stored(&images[0]).names.len(), MAX_IMAGES);
    place.refused(&list(MAX_IMAGES + 1), "more than 1000 images");
    let layers = [&one[..]];
    let named = [(NAMED, "amd64", &layers[..])].repeat(MAX_IMAGES + 1);
    place.refused(&archive(&layout(&named)), "more than 1000 images");
}

/// What is kept of an archive's paths: their names.
fn kept(made: &Tarball) -> Result<usize, Error> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&made.finish()).unwrap();
    file.rewind().unwrap();
    match Bundle::archive(file, tempfile::tempfile)? {
        Bundle::Archive { members, .. } => Ok(members.keys().map(Vec::len).sum()),
        Bundle::Directory(_) => Ok(0),
    }
}

#[test]
fn paths_that_no_image_has_are_not_kept() {
    let mut made = Tarball::default();
    made.file(&"a/".repeat(500_000), b"");
    made.file(&"a/".repeat(100), b"");
    made.link(b'2', "link", &"a/".repeat(100));
    made.link(b'1', "link", &"a/".repeat(500_000));
    assert_eq!(kept(&made).unwrap(), 0);
    made.file("blobs/sha256/0", b"");
    assert_eq!(kept(&made).unwrap(), 3);
    let long = format!("{0}/{0}/{0}/{0}/", "n".repeat(255));
    let long = long.repeat(4);
    let long = &long[..4000];
    for number in 0..(32 << 20) / 4000 + 100 {
        made.link(b'2', &format!("l{number}"), long);
    }
    let error = kept(&made).unwrap_err();
    assert!(matches!(error, Error::LongPaths(_)), "{error}");
}

#[test]
fn what_is_no_archive_is_not_written() {
    let spooled = |mut bytes: &mut dyn Read| {
        let mut file = tempfile::tempfile().unwrap();
        let result = spool(&mut bytes, &mut file);
        let meta = file.metadata().unwrap();
        (result, meta.len(), meta.blocks() * 512)
    };
    // Without an end.
    let (result, length, _) = spooled(&mut io::repeat(7));
    assert!(matches!(result, Err(Error::Archive(_))), "{result:?}");
    assert_eq!(length, 0);
    let (result, length, _) = spooled(&mut &b"short"[..]);
    assert!(result.is_err() && length == 0, "{result:?}");
    // Nothing but an end, or a long one.
    for begin in [&b""[..], &layer("x")] {
        let all = begin.len() as u64 + (64 << 20) + 7;
        let mut bytes = begin.chain(io::repeat(0)).take(all);
        let (result, length, taken) = spooled(&mut bytes);
        result.unwrap();
        assert_eq!(length, all);
        assert!(taken < 1 << 20, "{taken}");
    }
    let bytes = layer("content");
    let mut file = tempfile::tempfile().unwrap();
    spool(&mut &bytes[..], &mut file).unwrap();
    file.rewind().unwrap();
    let mut copy = Vec::new();
    file.read_to_end(&mut copy).unwrap();
    assert!(copy == bytes);
}

/// Runs a tool in a directory; false, said once, where there is none.
fn run(directory: &std::path::Path, words: &str) -> bool {
    let mut words = words.split_whitespace();
    let program = words.next().unwrap();
    let mut command = std::process::Command::new(program);
    let output = match command.args(words).current_dir(directory).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("SKIPPED: there is no {program}");
            return false;
        }
        other => other.unwrap(),
    };
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
    true
}

#[test]
fn what_tools_make_is_read() {
    let place = place();
    let at = place.place.path();
    fs::create_dir(at.join("etc")).unwrap();
    fs::write(at.join("etc/file"), [5; 70_000]).unwrap();
    fs::write(at.join("other"), "other").unwrap();
    for step in [
        "umoci init --layout made",
        "umoci new --image made:latest",
        "umoci insert --rootless --image made:latest etc /etc",
        "umoci insert --rootless --image made:latest other /other",
        "umoci insert --rootless --whiteout --image made:latest /etc/gone",
        "skopeo --insecure-policy copy oci:made:latest docker-archive:docker.tar:team/app:1",
        "skopeo --insecure-policy copy oci:made:latest oci-archive:oci.tar:team/app:2",
    ] {
        if !run(at, step) {
            return;
        }
    }
    let made = Bundle::Directory(at.join("made"));
    let made = load(&place.store, &made, &add_here).unwrap();
    let layers = place.stored(&made[0]).config.layers;
    assert_eq!(layers.len(), 3);
    for (file, name) in [("docker.tar", "team/app:1"), ("oci.tar", "team/app:2")] {
        let images = place.load(&fs::read(at.join(file)).unwrap()).unwrap();
        // Both may be the same image.
        assert!(
            names(&images).contains(&name.to_owned()),
            "{:?}",
            names(&images)
        );
        assert_eq!(place.stored(&images[0]).config.layers, layers);
    }
    let checked = place.store.check().unwrap();
    assert_eq!((checked.layers, checked.broken.len()), (3, 0));
}
