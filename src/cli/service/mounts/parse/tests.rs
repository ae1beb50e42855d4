//! Docker's words for mounts.

use super::*;

fn named(name: &str) -> Source {
    Source::Volume {
        name: Some(name.parse().unwrap()),
        bytes: None,
        filled: true,
    }
}

#[test]
fn volumes_are_read_as_docker_does() {
    for (text, source, target, read_only) in [
        ("data:/var/lib/x", named("data"), "/var/lib/x", false),
        ("data:/x//y/./:ro", named("data"), "/x/y", true),
        (
            "./src:/src:ro,z",
            Source::Directory("./src".into()),
            "/src",
            true,
        ),
    ] {
        let wanted = volume(text).unwrap();
        assert_eq!(wanted.source, source, "{text}");
        assert_eq!(
            (wanted.target.to_string().as_str(), wanted.read_only),
            (target, read_only)
        );
    }
    let anonymous = Source::Volume {
        name: None,
        bytes: None,
        filled: true,
    };
    assert_eq!(volume("/data").unwrap().source, anonymous);
    assert!(matches!(
        volume("data:/x:nocopy").unwrap().source,
        Source::Volume { filled: false, .. }
    ));
    for (text, part) in [
        ("./src:/src", "read only (`:ro`) it has a copy"),
        ("src/x:/src:ro", "begins with `/` or `.`"),
        ("data:x", "begin with `/`"),
        ("data:/", "over the root"),
        ("data://proc/.", "over `/proc`, which is the guest kernel's"),
        ("/sys/", "over `/sys`"),
        ("/dev", "over `/dev`"),
        ("data:/a/../b", "leads upwards"),
        ("data:/x:rx", "not one of ro, rw"),
        ("d:/x", "two characters"),
        ("a:/b:ro:x", "more than"),
    ] {
        let error = volume(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn words_say_the_same() {
    let wanted = mount("type=volume,src=data,dst=/x,readonly,volume-size=1g").unwrap();
    assert_eq!(
        wanted.source,
        Source::Volume {
            name: Some("data".parse().unwrap()),
            bytes: Some(1 << 30),
            filled: true,
        }
    );
    assert!(wanted.read_only);
    assert_eq!(
        mount("target=/x,source=data").unwrap(),
        volume("data:/x").unwrap()
    );
    assert_eq!(
        mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap(),
        tmpfs("/t:size=1m,mode=1770").unwrap()
    );
    for (text, part) in [
        ("type=volume,source=data", "no target"),
        ("type=bind,source=/src,target=/x", "not shared"),
        ("type=npipe,target=/x", "`npipe`"),
        ("type=tmpfs,source=a,target=/x", "no source"),
        ("target=/x,readonly=maybe", "true or false"),
        ("target=/x,size=1", "`size`"),
    ] {
        let error = mount(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn memory_has_dockers_defaults() {
    let usual = (libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC) as u32;
    for (text, flags, expected) in [
        ("/t", usual, ""),
        (
            "/t:size=64m,mode=1777,uid=7",
            usual,
            "size=67108864,mode=1777,uid=7",
        ),
        (
            "/t:exec,size=50%",
            usual & !(libc::MS_NOEXEC as u32),
            "size=50%",
        ),
    ] {
        let expected = Source::Tmpfs {
            flags,
            options: expected.into(),
        };
        assert_eq!(tmpfs(text).unwrap().source, expected, "{text}");
    }
    for text in ["t", "/t:size=x", "/t:mode=9", "/t:lowerdir=/", "/t:uid=-1"] {
        assert!(tmpfs(text).is_err(), "{text}");
    }
}
