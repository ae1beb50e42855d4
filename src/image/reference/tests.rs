//! What docker takes and shows, and what it does not.

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn refused(text: &str, why: Wrong) {
    let error = Reference::parse(text).unwrap_err();
    assert_eq!(error.why, why, "{text}");
    assert!(error.to_string().contains("is not the name of an image"));
}

#[test]
fn names_are_those_of_docker() {
    for (text, familiar, canonical) in [
        ("nginx", "nginx:latest", "docker.io/library/nginx:latest"),
        (
            "nginx:1.27-alpine",
            "nginx:1.27-alpine",
            "docker.io/library/nginx:1.27-alpine",
        ),
        (
            "library/nginx",
            "nginx:latest",
            "docker.io/library/nginx:latest",
        ),
        (
            "docker.io/nginx",
            "nginx:latest",
            "docker.io/library/nginx:latest",
        ),
        (
            "index.docker.io/nginx",
            "nginx:latest",
            "docker.io/library/nginx:latest",
        ),
        ("team/app", "team/app:latest", "docker.io/team/app:latest"),
        (
            "library/a/b",
            "library/a/b:latest",
            "docker.io/library/a/b:latest",
        ),
        (
            "localhost/app",
            "localhost/app:latest",
            "localhost/app:latest",
        ),
        (
            "localhost:5000/app:x",
            "localhost:5000/app:x",
            "localhost:5000/app:x",
        ),
        (
            "quay.io/a/b/c:V_1.0-x",
            "quay.io/a/b/c:V_1.0-x",
            "quay.io/a/b/c:V_1.0-x",
        ),
        (
            "127.0.0.1:5000/x",
            "127.0.0.1:5000/x:latest",
            "127.0.0.1:5000/x:latest",
        ),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        ("Host/app", "Host/app:latest", "Host/app:latest"),
        (
            "a__b.c-d---e_f",
            "a__b.c-d---e_f:latest",
            "docker.io/library/a__b.c-d---e_f:latest",
        ),
        // A port is a tag where no slash follows.
        (
            "registry:5000",
            "registry:5000",
            "docker.io/library/registry:5000",
        ),
    ] {
        let name = Reference::parse(text).unwrap();
        assert_eq!(name.to_string(), familiar, "{text}");
        assert_eq!(name.canonical(), canonical, "{text}");
        for written in [familiar, canonical] {
            assert_eq!(Reference::parse(written).unwrap(), name, "{text}");
        }
    }
}

#[test]
fn digests_need_no_tag() {
    let name = Reference::parse(&format!("nginx@{DIGEST}")).unwrap();
    assert_eq!(
        (name.tag(), name.digest()),
        (None, Digest::parse(DIGEST).as_ref())
    );
    assert_eq!(name.to_string(), format!("nginx@{DIGEST}"));
    let both = Reference::parse(&format!("quay.io/x/nginx:1@{DIGEST}")).unwrap();
    assert_eq!((both.registry(), both.repository()), ("quay.io", "x/nginx"));
    assert_eq!((both.tag(), both.digest()), (Some("1"), name.digest()));
    assert_eq!(both.to_string(), format!("quay.io/x/nginx:1@{DIGEST}"));
    let plain = Reference::parse("nginx:7").unwrap();
    assert_eq!(plain.at_digest(*name.digest().unwrap()), name);
}

#[test]
fn what_docker_does_not_take_is_refused() {
    refused("", Wrong::Empty);
    refused(&DIGEST[7..], Wrong::Id);
    refused("Nginx", Wrong::UpperCase);
    refused("team/App", Wrong::UpperCase);
    for text in [
        "-nginx", "nginx-", "a..b", "a___b", "a._b", "a//b", "/a", "a/", "nginx x", "nginx\n",
        "..", "a/../b", "näme", ":1", "@", "a:b/c",
    ] {
        let error = Reference::parse(text).unwrap_err();
        let known = [Wrong::Repository, Wrong::Digest, Wrong::Registry];
        assert!(known.contains(&error.why), "{text}: {error}");
    }
    for text in [
        "-a.b/c",
        "a_b.c/d",
        "a.b:0/c",
        "a.b:99999/c",
        "a.b:/c",
        "a..b/c",
        "[::g]/x",
        "[::1]x/y",
    ] {
        refused(text, Wrong::Registry);
    }
    for tag in ["", ".a", "-a", "a b", "a/b:", "ä", &"t".repeat(129)] {
        let error = Reference::parse(&format!("nginx:{tag}")).unwrap_err();
        assert!(
            [Wrong::Tag, Wrong::Registry].contains(&error.why),
            "{tag}: {error}"
        );
    }
    for digest in [
        "",
        "sha256:",
        "sha512:00",
        &DIGEST[..70],
        &DIGEST.to_uppercase(),
    ] {
        refused(&format!("nginx@{digest}"), Wrong::Digest);
    }
    assert!(Reference::parse(&"a".repeat(237)).is_ok());
    refused(&"a".repeat(238), Wrong::Long);
    assert!(Reference::parse(&format!("a:{}", "t".repeat(128))).is_ok());
}
