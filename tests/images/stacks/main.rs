//! Generated stacks of layers: the tree that podman makes of one is the tree that the kernel shows of kvmlet's image of it.
//!
//! ```text
//! cargo test -p kvmlet-image --test stacks
//! KVMLET_STACKS=5000 KVMLET_SEED=7 cargo test -p kvmlet-image --test stacks    # others, and more of them
//! ```
//!
//! Where podman does something else than the specification says, or than it does itself with another driver of its
//! storage, this is what was decided:
//!
//! * Its driver `vfs` is asked, which applies each layer to a copy of the one below. `overlay` unpacks a layer alone, and
//!   so knows neither what a directory is that the layer only implies, nor a hard link's target in a layer below.
//! * What a layer removes it takes from the layer itself, too, if that came before; here it counts for those below only,
//!   as the specification says. So podman gets whiteouts in front of all else, and kvmlet anywhere.
//! * It knows sparse files in PAX's form only, and gets those of GNU's old one as they are when they are unpacked.
//! * A root that no layer says anything of is 0555 there, and 0755 here, as docker has it.
//! * It makes directories that are implied as mkdir(2) does: in a set-group-ID directory they have its group. Here they are
//!   root's, so no directory is set-group-ID.
//! * An extended attribute without a value is none there, and a directory keeps those of the layer below that a layer does
//!   not name. Here such a one is kept, and an entry says all there is of its directory, as with `overlay`.
//! * It forgets that a symbolic link or a device has several names when it puts a layer on top.
//! * It sets a directory's time anew when something in it changes. A layer that says nothing of a directory changes
//!   nothing of it here: times that are not older than the test are podman's own and count as any.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

mod made;
mod ours;
mod podman;
mod seen;
#[path = "../../../src/image/tarball.rs"]
#[allow(dead_code)]
mod tarball;

use ours::run;
use seen::Seen;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn number(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap())
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// What this machine lacks.
fn missing() -> Option<&'static str> {
    // It may be a module, and there may be none.
    let _ = Command::new("modprobe").arg("-q").arg("erofs").status();
    let known = fs::read_to_string("/proc/filesystems").unwrap();
    let has = |program| Command::new(program).arg("--version").output().is_ok();
    match () {
        () if !rustix::process::geteuid().is_root() => Some("only root mounts"),
        () if !known.contains("erofs") => Some("the kernel has no EROFS"),
        () if !has("podman") => Some("there is no podman"),
        () if !has("fsck.erofs") => Some("there is no fsck.erofs"),
        () => None,
    }
}

#[test]
fn podman_sees_the_same() {
    if let Some(why) = missing() {
        return println!("SKIPPED: {why}");
    }
    let count = number("KVMLET_STACKS").unwrap_or(300);
    // The same ones each time: a change is to blame for what fails, and others are tried by hand.
    let seed = number("KVMLET_SEED").unwrap_or(1000);
    println!("stacks {seed}..{}", seed + count);
    let seeds: Vec<u64> = (seed..seed + count).collect();
    std::thread::scope(|scope| {
        let halves = seeds.chunks(seeds.len().div_ceil(2).max(1));
        let checking: Vec<_> = halves.map(|half| scope.spawn(|| alone(half))).collect();
        for thread in checking {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// All that is mounted there goes with the thread, and its namespace.
fn alone(seeds: &[u64]) {
    // SAFETY: this thread was made for it, and nothing else is shared that it would miss.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
    run(Command::new("mount").args(["--make-rprivate", "/"]));
    let place = tempfile::tempdir().unwrap();
    run(Command::new("mount")
        .args(["-t", "tmpfs", "tmpfs"])
        .arg(place.path()));
    for some in seeds.chunks(50) {
        check(place.path(), some);
    }
    run(Command::new("umount")
        .args(["--lazy", "-R"])
        .arg(place.path()));
}

fn check(place: &Path, seeds: &[u64]) {
    let begun = now() as i64;
    let stacks: Vec<_> = seeds.iter().map(|seed| made::stack(*seed)).collect();
    let podman = podman::Podman::new(&place.join("podman"));
    let mounted = podman.load(&stacks);
    let mut failed = Vec::new();
    for ((seed, stack), podmans) in seeds.iter().zip(&stacks).zip(&mounted) {
        let theirs = seen::tree(podmans);
        let ours = with_image(&place.join("ours"), stack, seen::tree);
        let differences = differences(&theirs, &ours, begun);
        if !differences.is_empty() {
            failed.push(format!("KVMLET_SEED={seed} KVMLET_STACKS=1\n{differences}"));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {}\n{}",
        failed.len(),
        seeds.len(),
        failed.join("\n")
    );
    podman.remove();
}

fn differences(
    theirs: &BTreeMap<String, Seen>,
    ours: &BTreeMap<String, Seen>,
    begun: i64,
) -> String {
    let mut text = String::new();
    let names: std::collections::BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
    for name in names {
        let (theirs, ours) = (theirs.get(name), ours.get(name));
        let same = match (theirs, ours) {
            (Some(theirs), Some(ours)) if name.is_empty() && theirs.what == "40555 0:0" => {
                ours.what == "40755 0:0"
            }
            (Some(theirs), Some(ours)) => {
                theirs.what == ours.what && (theirs.mtime == ours.mtime || theirs.mtime.0 >= begun)
            }
            _ => false,
        };
        if !same {
            text += &format!("  {name:?}\n    podman {theirs:?}\n    kvmlet {ours:?}\n");
        }
    }
    text
}

/// What the kernel shows of the image that the store has of a stack, which `fsck.erofs` finds clean.
fn with_image<T>(place: &Path, stack: &[made::Made], look: impl FnOnce(&Path) -> T) -> T {
    let disk = ours::disk(place, stack);
    run(Command::new("fsck.erofs").arg("--extract").arg(&disk));
    let root = place.join("root");
    fs::create_dir(&root).unwrap();
    run(Command::new("mount")
        .args(["-t", "erofs", "-o", "loop,ro"])
        .arg(&disk)
        .arg(&root));
    let seen = look(&root);
    // Children that another thread is about to start have all that is open here, for a moment.
    run(Command::new("umount").arg("--lazy").arg(&root));
    fs::remove_dir_all(place).unwrap();
    seen
}
