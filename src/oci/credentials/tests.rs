use super::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn password(user: &str, password: &str) -> Option<Credentials> {
    Some(Credentials::Password {
        user: user.into(),
        password: password.into(),
    })
}

fn keyring(text: &str) -> (tempfile::TempDir, Keyring) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("config.json");
    fs::write(&path, text).unwrap();
    (place, Keyring::in_file(&path))
}

#[test]
fn what_docker_and_podman_keep_is_found() {
    // base64 of "user:pass:word", "hub:secret", "part:x".
    let (_place, keyring) = keyring(
        r#"{"auths": {
            "localhost:5000": {"auth": "dXNlcjpwYXNzOndvcmQ="},
            "https://index.docker.io/v1/": {"auth": "aHViOnNlY3JldA=="},
            "https://old.example/v1/": {"auth": "aHViOnNlY3JldA=="},
            "quay.io/team": {"auth": "cGFydDp4"},
            "token.example": {"identitytoken": "long"},
            "broken.example": {"auth": "%%%"},
            "empty.example": {}
        }}"#,
    );
    let find = |registry, repository| keyring.find(registry, repository).unwrap();
    assert!(find("localhost:5000", "a/b") == password("user", "pass:word"));
    assert!(find("docker.io", "library/nginx") == password("hub", "secret"));
    assert!(find("old.example", "x") == password("hub", "secret"));
    assert!(find("quay.io", "team/app") == password("part", "x"));
    assert!(find("quay.io", "teams/app").is_none());
    assert!(find("token.example", "x") == Some(Credentials::IdentityToken("long".into())));
    for none in [
        "broken.example",
        "empty.example",
        "localhost",
        "docker.example",
    ] {
        assert!(find(none, "x").is_none(), "{none}");
    }
}

#[test]
fn what_is_kept_leaves_the_rest_as_it_was() {
    let (place, keyring) = keyring(r#"{"psFormat": "{{.ID}}", "auths": {"a": {"auth": "eDp5"}}}"#);
    let path = place.path().join("config.json");
    assert_eq!(keyring.keep("b:5000", "user", "secret").unwrap(), path);
    keyring.keep("docker.io", "hub", "s").unwrap();
    assert!(keyring.find("b:5000", "x").unwrap() == password("user", "secret"));
    assert!(keyring.find("docker.io", "x").unwrap() == password("hub", "s"));
    assert!(keyring.find("a", "x").unwrap() == password("x", "y"));
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("psFormat") && text.contains(DOCKER_HUB),
        "{text}"
    );
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(keyring.forget("b:5000").unwrap() && keyring.forget("docker.io").unwrap());
    assert!(!keyring.forget("b:5000").unwrap());
    assert!(keyring.find("b:5000", "x").unwrap().is_none());
    assert!(keyring.find("a", "x").unwrap() == password("x", "y"));
}

#[test]
fn a_place_is_made_for_the_first() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("new/config.json");
    let keyring = Keyring::in_file(&path);
    assert!(keyring.find("a", "b").unwrap().is_none());
    keyring.keep("a", "user", "secret").unwrap();
    assert!(keyring.find("a", "b").unwrap() == password("user", "secret"));
    let mode = fs::metadata(place.path().join("new"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn what_is_no_file_of_passwords_is_told() {
    let (place, keyring) = keyring("[1]");
    let error = keyring.find("a", "b").unwrap_err();
    assert!(
        error.to_string().contains("is not a file of passwords"),
        "{error}"
    );
    assert!(keyring.keep("a", "b", "c").is_err());
    assert_eq!(
        fs::read_to_string(place.path().join("config.json")).unwrap(),
        "[1]"
    );
}

#[test]
fn a_fifo_in_its_place_is_not_waited_for() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("config.json");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let error = Keyring::in_file(&path).find("quay.io", "a/b").unwrap_err();
    let text = kvmlet_sys::causes::in_a_line(&error);
    assert!(
        text.contains("config.json") && text.contains("not a regular file"),
        "{text}"
    );
}

#[test]
fn helpers_that_are_missing_are_told() {
    for text in [
        r#"{"credsStore": "no-such-helper"}"#,
        r#"{"credHelpers": {"a": "no-such-helper"}}"#,
    ] {
        let (_place, keyring) = keyring(text);
        let error = keyring.find("a", "b").unwrap_err().to_string();
        assert!(
            error.contains("docker-credential-no-such-helper") && error.contains("cannot be run"),
            "{error}"
        );
    }
    let (_place, keyring) = keyring(r#"{"credsStore": "../../bin/sh"}"#);
    let error = keyring.find("a", "b").unwrap_err().to_string();
    assert!(error.contains("is a path"), "{error}");
}
