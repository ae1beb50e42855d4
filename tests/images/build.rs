//! Images that are built: by buildah and by podman, on images that only the store has, or a registry; and what is left
//! of a build that was killed.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

#[allow(dead_code)] // what the tests of registries use
mod made;
#[allow(dead_code)]
mod server;
#[allow(dead_code)]
mod world;

use made::{Content, layer};
use server::Server;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use world::{User, is_installed, said};

/// Where what commands of a Containerfile are can be seen at once.
const STATIC: &str = "/bin/busybox";

/// Whether a build can be tried here, with commands in it.
fn can_build() -> bool {
    let can = rustix::process::geteuid().is_root()
        && is_installed("buildah")
        && Path::new(STATIC).exists();
    if !can {
        println!("SKIPPED: buildah or a static busybox is not installed, or this is not root");
    }
    can
}

/// Has a store have `localhost/base:1`: one layer with a shell.
fn add_base(user: &User) {
    let mut content = Content::default();
    let shell = layer(&[("bin/sh", fs::read(STATIC).unwrap())]);
    content.image(Some("one"), "amd64", &[shell]);
    let layout = user.path("layout");
    content.write(&layout);
    let told = user.done(&["load", "-i", layout.to_str().unwrap()]);
    let id = told.trim().rsplit(' ').next().unwrap();
    user.done(&["tag", id, "localhost/base:1"]);
}

fn containerfile(user: &User, text: &str) -> PathBuf {
    let directory = user.path("context");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("Containerfile"), text).unwrap();
    directory
}

/// A build, with a way to run commands that needs nothing of the host.
fn command(user: &User, arguments: &[&str]) -> Command {
    let mut command = user.command(&[&["build"], arguments].concat());
    command.env("BUILDAH_ISOLATION", "chroot");
    command
}

fn build(user: &User, arguments: &[&str]) -> Output {
    command(user, arguments).output().unwrap()
}

fn built(user: &User, arguments: &[&str]) -> String {
    let output = build(user, arguments);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?}: {told}{}",
        said(&output)
    );
    told
}

/// Images and layers of the store.
fn kept(user: &User) -> usize {
    let of = |name: &str| {
        fs::read_dir(user.path("lib/kvmlet/images").join(name))
            .unwrap()
            .count()
    };
    of("layers") + of("images")
}

/// What is in the directory of builds, but for what is kept between them.
fn left(user: &User) -> Vec<String> {
    let place = user.path("lib/kvmlet/images/build");
    let names = fs::read_dir(place).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut left: Vec<String> = names.filter(|name| !name.starts_with("cache-")).collect();
    left.sort();
    left
}

/// The files of an image, from the archive that `save` writes.
fn files(user: &User, image: &str) -> Vec<String> {
    let archive = user.path("saved.tar");
    user.done(&["save", "-o", archive.to_str().unwrap(), image]);
    let tree = user.path("saved");
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir(&tree).unwrap();
    let unpack = "tar -C \"$1\" -xf \"$0\" && cd \"$1\" && for l in blobs/sha256/*; do tar -tf \"$l\" 2>/dev/null || true; done";
    let output = Command::new("sh")
        .args(["-ec", unpack])
        .args([&archive, &tree])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(ToString::to_string).collect()
}

#[test]
fn an_image_is_built_on_one_that_only_the_store_has() {
    if !can_build() {
        return;
    }
    let user = User::new();
    add_base(&user);
    let before = kept(&user);
    let directory = containerfile(
        &user,
        "ARG BASE=nowhere\nFROM ${BASE}:1 AS one\nARG WORD=none\nRUN echo $WORD >/word\n\
         FROM localhost/base:1\nCOPY --from=one /word /copied\nCOPY [\"odd name\", \"/odd name\"]\n\
         HEALTHCHECK --interval=7s CMD true\nUSER 7:8\nCMD [\"sh\"]\n",
    );
    fs::write(directory.join("odd name"), "x").unwrap();
    let context = directory.to_str().unwrap();
    let arguments = [
        "-t",
        "made:1",
        "--tag",
        "quay.io/team/made",
        "--build-arg",
        "BASE=localhost/base",
        "--build-arg",
        "WORD=told",
        "--label",
        "a=b c",
        context,
    ];
    let told = built(&user, &arguments);
    assert!(told.contains("FROM localhost/base:1"), "{told}");
    let end = "Successfully tagged made:1\nSuccessfully tagged quay.io/team/made:latest\n";
    assert!(told.ends_with(end), "{told}");
    let told = user.done(&["image", "inspect", "made:1", "-f", "{{json .Config}}"]);
    let config: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(config["User"], "7:8");
    assert_eq!(config["Labels"]["a"], "b c");
    assert_eq!(config["Healthcheck"]["Interval"], 7_000_000_000_i64);
    let all = files(&user, "made:1");
    for name in ["bin/sh", "copied", "odd name"] {
        assert!(all.iter().any(|it| it == name), "no {name} in {all:?}");
    }
    // The base's layer is the one that was there; two small ones and an image came.
    assert_eq!(kept(&user), before + 3);
    let base = "{{join .RootFS.Layers \" \"}}";
    let layers_of = |name: &str| user.done(&["image", "inspect", name, "-f", base]);
    let (below, above) = (layers_of("localhost/base:1"), layers_of("made:1"));
    assert!(above.starts_with(below.trim()), "{below} {above}");
    // Steps are kept between builds, and nothing else is.
    let told = built(&user, &arguments);
    assert!(told.contains("Using cache"), "{told}");
    assert_eq!(left(&user), ["lock"]);
    let told = built(&user, &[&["--no-cache", "-q"], &arguments[..]].concat());
    assert!(
        told.starts_with("sha256:") && told.lines().count() == 1,
        "{told}"
    );
    // One stage, from standard input, with no directory.
    let mut child = command(&user, &["-t", "stage", "--target", "one", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let text = b"FROM localhost/base:1 AS one\nRUN echo >/only\nFROM nowhere.invalid/x\n";
    child.stdin.take().unwrap().write_all(text).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(files(&user, "stage").iter().any(|it| it == "only"));
    assert!(user.done(&["image", "check"]).contains("as they should be"));
    user.done(&["image", "prune", "--all", "--force"]);
    assert!(!user.path("lib/kvmlet/images/build/cache-buildah").exists());
}

#[test]
fn an_image_is_built_by_podman_on_one_of_a_registry() {
    if !can_build() || !is_installed("podman") {
        return println!("SKIPPED: podman is not installed");
    }
    let user = User::new();
    let mut content = Content::default();
    let shell = layer(&[("bin/sh", fs::read(STATIC).unwrap())]);
    content.image(Some("1"), "amd64", &[shell]);
    let registry = Server::start(move |request| content.answer(request));
    let name = format!("{}/team/base:1", registry.host());
    let directory = containerfile(&user, &format!("FROM {name}\nRUN echo here >/made\n"));
    // No buildah on this one's path.
    let programs = user.path("bin");
    fs::create_dir(&programs).unwrap();
    for program in [
        "podman",
        "unshare",
        "true",
        "sh",
        "mount",
        "newuidmap",
        "newgidmap",
    ] {
        let found = ["/usr/bin", "/bin"].map(|it| Path::new(it).join(program));
        let found = found.into_iter().find(|path| path.exists()).unwrap();
        symlink(found, programs.join(program)).unwrap();
    }
    let with_path = |path: &Path| {
        let mut command = command(&user, &["-t", "made", directory.to_str().unwrap()]);
        command.env("PATH", path).output().unwrap()
    };
    let output = with_path(&programs);
    assert!(output.status.success(), "{}", said(&output));
    assert!(user.path("lib/kvmlet/images/build/cache-podman").exists());
    assert!(files(&user, "made").iter().any(|it| it == "made"));
    let (_, requests) = registry.blobs();
    let output = with_path(&programs);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        registry.blobs().1,
        requests,
        "what is here was fetched again"
    );
    // Neither of them: one error, and what to do.
    fs::remove_file(programs.join("podman")).unwrap();
    let output = with_path(&programs);
    assert_eq!(output.status.code(), Some(1));
    let told = said(&output);
    assert!(
        told.contains("neither is installed") && told.contains("package `buildah`"),
        "{told}"
    );
}

#[test]
fn what_is_not_built_is_told_once_and_leaves_nothing() {
    if !can_build() {
        return;
    }
    let user = User::new();
    add_base(&user);
    let before = kept(&user);
    for (text, flags, why) in [
        (
            "FROM localhost/base:1\nRUN exit 7\n",
            &[][..],
            "has not built the image",
        ),
        (
            "FROM localhost/base:1\nNONSENSE\n",
            &[],
            "has not built the image",
        ),
        (
            "FROM 127.0.0.1:1/none\n",
            &[],
            "cannot talk to the registry `127.0.0.1:1`",
        ),
        (
            "FROM localhost/base:1\n",
            &["--platform", "linux/arm64"],
            "linux/arm64",
        ),
        (
            "FROM localhost/base:1\n",
            &["--platform", "a b"],
            "not a platform",
        ),
        ("FROM localhost/base:1\n", &["-t", "UPPER"], "lower case"),
        ("FROM localhost/base:1\n", &["-f", "missing"], "`missing`"),
    ] {
        let directory = containerfile(&user, text);
        let output = build(&user, &[flags, &[directory.to_str().unwrap()]].concat());
        let told = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}: {told}");
        assert!(told.contains(why), "{text}: {told}");
        let errors = told
            .lines()
            .filter(|line| line.starts_with("error: "))
            .count();
        assert_eq!(errors, 1, "{text}: {told}");
        assert_eq!(kept(&user), before, "{text}");
    }
    let empty = user.path("empty");
    fs::create_dir(&empty).unwrap();
    let output = build(&user, &[empty.to_str().unwrap()]);
    assert!(
        said(&output).contains("neither a Containerfile"),
        "{}",
        said(&output)
    );
    assert_eq!(left(&user), ["lock"]);
}

#[test]
fn a_build_that_is_killed_ends_with_all_that_it_has_started() {
    if !can_build() {
        return;
    }
    let user = User::new();
    add_base(&user);
    let directory = containerfile(
        &user,
        "FROM localhost/base:1\nRUN echo >/begun; exec sleep 98765\n",
    );
    let mut child = command(&user, &[directory.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Those of other tests sleep for another time.
    let sleepers = || {
        let all = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok());
        all.filter(|line| line.ends_with(b"sleep\x0098765\0"))
            .count()
    };
    let wait_for = |count: usize| {
        let since = Instant::now();
        while (sleepers() > 0) != (count > 0) {
            assert!(since.elapsed() < Duration::from_secs(120), "{count}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for(1);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(0);
    assert_eq!(left(&user), ["lock", "work-0"]);
    // The next one clears up.
    let directory = containerfile(&user, "FROM localhost/base:1\nRUN echo >/made\n");
    built(&user, &["-t", "made", directory.to_str().unwrap()]);
    assert_eq!(left(&user), ["lock"]);
    let containers =
        user.path("lib/kvmlet/images/build/cache-buildah/overlay-containers/containers.json");
    assert_eq!(fs::read_to_string(containers).unwrap().trim(), "[]");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(
        !mounts.contains(user.path("lib").to_str().unwrap()),
        "{mounts}"
    );
}
