//! Which paths are whose, and where copies go.

use super::*;

fn side(text: &str) -> Result<(Option<&str>, String), String> {
    match Side::of(OsStr::new(text)).map_err(|failed| failed.to_string())? {
        Side::Host(path) => Ok((None, path.display().to_string())),
        Side::Guest { instance, path } => {
            Ok((Some(instance), String::from_utf8_lossy(&path).into_owned()))
        }
        Side::Stream => Ok((None, "an archive".into())),
    }
}

#[test]
fn paths_are_of_instances_or_of_the_host() {
    for (text, instance, path) in [
        ("web:/etc/hosts", Some("web"), "/etc/hosts"),
        ("web:etc/a:b", Some("web"), "/etc/a:b"),
        ("web:.", Some("web"), "/."),
        ("./web:x", None, "./web:x"),
        ("/srv/a:b", None, "/srv/a:b"),
        ("..", None, ".."),
        ("file", None, "file"),
        ("-", None, "an archive"),
        ("./-", None, "./-"),
    ] {
        assert_eq!(side(text), Ok((instance, path.to_string())), "{text}");
    }
    for (text, expected) in [
        ("", "an empty path is none"),
        (":/x", "`:/x` names no instance"),
        ("web:", "`web:` names no path"),
    ] {
        let error = side(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn destinations_are_as_dockers() {
    let to = |path: &str, kind| String::from_utf8(destination(path.as_bytes(), kind)).unwrap();
    for (path, content, directory, other) in [
        ("/srv", "/srv/.", "/srv", "/srv"),
        ("/srv/", "/srv/.", "/srv", "/srv/"),
        ("/srv/.", "/srv/.", "/srv", "/srv/"),
        ("/srv//./", "/srv/.", "/srv", "/srv/"),
        ("/", "/.", "/", "/"),
        ("/.", "/.", "/", "/"),
        (".", "./.", ".", "./"),
        ("./", "./.", ".", "./"),
        ("..", "../.", "..", ".."),
        ("a.", "a./.", "a.", "a."),
    ] {
        assert_eq!(to(path, Kind::Content), content, "{path}");
        assert_eq!(to(path, Kind::Directory), directory, "{path}");
        assert_eq!(to(path, Kind::Other), other, "{path}");
    }
}

#[test]
fn sources_say_by_their_end_what_is_copied() {
    assert_eq!(source(b"/srv/."), (&b"/srv"[..], Kind::Content));
    assert_eq!(source(b"/srv/"), (&b"/srv"[..], Kind::Other));
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).into_os_string();
    std::fs::create_dir(path("dir")).unwrap();
    std::fs::write(path("file"), "").unwrap();
    std::os::unix::fs::symlink("dir", path("link")).unwrap();
    let real = place.path().canonicalize().unwrap();
    for (name, expected, kind) in [
        ("dir/.", real.join("dir"), Kind::Content),
        ("link/.", real.join("dir"), Kind::Content),
        ("link/", real.join("dir"), Kind::Directory),
        ("link", path("link").into(), Kind::Other),
        ("dir", path("dir").into(), Kind::Directory),
        ("file", path("file").into(), Kind::Other),
    ] {
        assert_eq!(found(&path(name)).unwrap(), (expected, kind), "{name}");
    }
    for name in ["none", "none/.", "file/", "file/."] {
        let error = found(&path(name)).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}`\n")), "{error}");
    }
}
