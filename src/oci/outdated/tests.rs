//! An image of packages, and an index that knows newer ones.

use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use kvmlet_image::Digest;
use kvmlet_image::layer::LIMITS;
use kvmlet_image::store::Begun;
use kvmlet_spec::Dialect;
use serde_json::json;
use std::fs;
use std::io::Write;
use std::process::Command;

fn stanza(name: &str, version: &str) -> String {
    format!(
        "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n"
    )
}

/// An image of these files in one layer.
fn image(store: &Store, files: &[(&str, &str)]) -> Image {
    let archive = archive(files);
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
    let mut search = Search::new(&lists, &lists);
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
    let found = Search::new(&nowhere, &nowhere).look(&store, &with).unwrap();
    assert!(matches!(found, Found::Unknown(_)), "{found:?}");
}

/// An archive of these files.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, path, text.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

/// An index as apk has it: a signature in front, which is compressed alone, and has no end of an archive.
fn apk_index(at: &Path, name: &str, description: &str, packages: &str) {
    let signature = archive(&[(".SIGN.RSA.a.pub", "signature")]);
    let list = archive(&[("DESCRIPTION", description), ("APKINDEX", packages)]);
    let mut bytes = Vec::new();
    for part in [&signature[..1024], &list] {
        let mut gzip = GzEncoder::new(&mut bytes, Compression::fast());
        gzip.write_all(part).unwrap();
        gzip.finish().unwrap();
    }
    fs::write(at.join(format!("APKINDEX.{name}.tar.gz")), bytes).unwrap();
}

#[test]
fn packages_of_apk_are_those_of_the_images_release() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store")).unwrap();
    let cache = place.path();
    let packages =
        "C:Q1x=\nP:busybox\nV:1.36.1-r30\nA:x86_64\nS:1\n\nP:musl\nV:1.2.5-r0\nA:x86_64\n\n";
    apk_index(cache, "0a1b2c3d", "v3.20.3-12-gabc", packages);
    apk_index(
        cache,
        "11111111",
        "v3.20.3-9-gdef",
        "P:community\nV:2.0-r0\n\n",
    );
    apk_index(cache, "22222222", "v3.21.0-1-gabc", "P:musl\nV:9-r0\n\n");
    fs::write(cache.join("installed"), "not an index").unwrap();
    let installed = "C:Q1y=\nP:busybox\nV:1.36.1-r29\nA:x86_64\nF:bin\nR:busybox\na:0:0:755\n\n\
        P:musl\nV:1.2.5-r0\nA:x86_64\n\nP:community\nV:2.0_rc1-r9\nA:noarch\n\nP:mine\nV:1-r0\n\n";
    let of = |version: &str, path: &str| {
        let text = format!("ID=alpine\nVERSION_ID={version}\n");
        image(&store, &[("etc/os-release", &text), (path, installed)])
    };
    let mut search = Search::new(cache, cache);
    let names = |found: &Found| match found {
        Found::Outdated(packages) => {
            let names = packages
                .iter()
                .map(|(package, newest)| format!("{} {} {newest}", package.name, package.version));
            names.collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    for path in ["lib/apk/db/installed", "usr/lib/apk/db/installed"] {
        let found = search.look(&store, &of("3.20.1", path)).unwrap();
        let expected = [
            "busybox 1.36.1-r29 1.36.1-r30",
            "community 2.0_rc1-r9 2.0-r0",
        ];
        assert_eq!(names(&found), expected);
    }
    let other = search.look(&store, &of("3.19.4", "lib/apk/db/installed"));
    let other = other.unwrap();
    assert!(matches!(&other, Found::Unknown(it) if it.to_string() == "alpine 3.19.4"));
    // What cannot be read is told, and not passed over.
    fs::write(cache.join("APKINDEX.33333333.tar.gz"), "no archive").unwrap();
    let mut search = Search::new(cache, cache);
    let broken = search.look(&store, &of("3.20.1", "lib/apk/db/installed"));
    let help = broken.unwrap_err().remedy().unwrap();
    assert!(
        help.in_words_of(Dialect::Flags)
            .to_string()
            .contains("apk update")
    );
}

#[test]
fn packages_of_rpm_are_said_to_be_unread() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store")).unwrap();
    let mut search = Search::new(place.path(), place.path());
    for path in [
        "var/lib/rpm/rpmdb.sqlite",
        "usr/lib/sysimage/rpm/Packages.db",
    ] {
        let image = image(&store, &[("etc/os-release", "ID=fedora\n"), (path, "x")]);
        assert_eq!(
            search.look(&store, &image).unwrap(),
            Found::Unread,
            "{path}"
        );
    }
}
