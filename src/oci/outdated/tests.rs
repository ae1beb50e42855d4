//! An image of packages, and an index that knows newer ones.

use super::*;
use kvmlet_image::Digest;
use kvmlet_image::layer::LIMITS;
use kvmlet_image::store::Begun;
use serde_json::json;
use std::fs;
use std::process::Command;

fn stanza(name: &str, version: &str) -> String {
    format!(
        "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n"
    )
}

/// An image of these files in one layer.
fn image(store: &Store, files: &[(&str, &str)]) -> Image {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, path, text.as_bytes())
            .unwrap();
    }
    let archive = builder.into_inner().unwrap();
    let diff_id = Digest::of(&archive);
    let layer = match store.begin_layer(&diff_id).unwrap() {
        Begun::There(layer) => layer,
        Begun::Yours(addition) => addition.add(&archive[..], &LIMITS).unwrap(),
    };
    let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
    store
        .add_image(config.to_string().as_bytes(), &[layer], &[])
        .unwrap()
        .image
}

fn release(at: &Path, name: &str, origin: &str, codename: &str, more: &str) {
    let text = format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: {origin}\nCodename: {codename}\n{more}SHA256:\n x\n"
    );
    fs::write(at.join(format!("{name}_InRelease")), text).unwrap();
}

#[test]
fn newer_packages_are_those_of_the_images_release() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store")).unwrap();
    let lists = place.path().join("lists");
    fs::create_dir_all(lists.join("partial")).unwrap();
    let write = |name: &str, text: &str| fs::write(lists.join(name), text).unwrap();
    release(&lists, "main", "Debian", "stable", "");
    write(
        "main_x_binary-amd64_Packages",
        &(stanza("a", "1.0-1") + &stanza("b", "2:1") + &stanza("same", "1.0")),
    );
    release(&lists, "sec", "Debian", "stable-security", "");
    write(
        "sec_main_binary-amd64_Packages",
        &stanza("a", "1.0-1+deb12u2"),
    );
    release(
        &lists,
        "bpo",
        "Debian",
        "stable-backports",
        "NotAutomatic: yes\n",
    );
    write("bpo_main_binary-amd64_Packages", &stanza("same", "9"));
    release(&lists, "other", "Other", "stable", "");
    write("other_main_binary-amd64_Packages", &stanza("same", "9"));
    // Compressed by whatever apt knows.
    if Path::new("/usr/lib/apt/apt-helper").exists() {
        let plain = lists.join("main_y_binary-amd64_Packages");
        fs::write(&plain, stanza("b", "2:3")).unwrap();
        assert!(Command::new("gzip").arg(&plain).status().unwrap().success());
    } else {
        write("main_y_binary-amd64_Packages", &stanza("b", "2:3"));
    }
    let os = ("usr/lib/os-release", "ID=debian\nVERSION_CODENAME=stable\n");
    let status = stanza("a", "1.0-1+deb12u1")
        + &stanza("b", "2:1")
        + &stanza("same", "1.0")
        + &stanza("unknown", "1");
    let mut search = Search::new(&lists);
    let with = image(&store, &[os, ("var/lib/dpkg/status", &status)]);
    let package = |name: &str, version: &str| Package {
        name: name.into(),
        architecture: "amd64".into(),
        version: version.into(),
    };
    let expected = vec![
        (package("a", "1.0-1+deb12u1"), "1.0-1+deb12u2".to_owned()),
        (package("b", "2:1"), "2:3".to_owned()),
    ];
    assert_eq!(
        search.look(&store, &with).unwrap(),
        Found::Outdated(expected)
    );
    // Without dpkg, each package has notes of its own.
    let apart = image(
        &store,
        &[
            os,
            (
                "var/lib/dpkg/status.d/b",
                "Package: b\nVersion: 2:3\nArchitecture: amd64\n",
            ),
        ],
    );
    assert_eq!(
        search.look(&store, &apart).unwrap(),
        Found::Outdated(vec![])
    );
    let none = image(&store, &[os, ("bin/x", "x")]);
    assert_eq!(search.look(&store, &none).unwrap(), Found::NoPackages);
    let foreign = image(
        &store,
        &[
            ("etc/os-release", "ID=debian\nVERSION_CODENAME=next\n"),
            ("var/lib/dpkg/status", &status),
        ],
    );
    let found = search.look(&store, &foreign).unwrap();
    assert!(
        matches!(&found, Found::Unknown(release) if release.codename == "next"),
        "{found:?}"
    );
    let nowhere = lists.join("nowhere");
    let found = Search::new(&nowhere).look(&store, &with).unwrap();
    assert!(matches!(found, Found::Unknown(_)), "{found:?}");
}
