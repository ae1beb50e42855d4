//! Jails that have one network namespace in common.

use super::*;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use std::path::{Path, PathBuf};

/// A directory for what is kept, in a mount namespace of this process's own.
fn place() -> (tempfile::TempDir, PathBuf) {
    namespaces::unshare(libc::CLONE_NEWNS).unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).unwrap();
    let place = tempfile::tempdir().unwrap();
    let kept = place.path().join("network");
    (place, kept)
}

/// Jails a process, and lets `look` at it by its number while it is there.
fn look<T>(place: &Path, host: &Host, look: impl FnOnce(&str) -> T) -> T {
    let (wait, go) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (told, tell) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let jail = Jail::new(std::process::id());
    let child = forked(&jail, |lifeline| {
        let place = Directory::open(place).unwrap();
        let missing = enter_with(&jail, lifeline, false, Some(place)).unwrap();
        assert!(missing.is_empty(), "{missing:?}");
        for (what, attempt) in ATTEMPTS {
            assert_eq!(attempt(host), -1, "{what} is available");
        }
        File::from(tell.try_clone().unwrap())
            .write_all(b"x")
            .unwrap();
        File::from(wait).read_exact(&mut [0]).unwrap();
    });
    drop(tell);
    File::from(told).read_exact(&mut [0]).unwrap();
    let seen = look(&format!("/proc/{}", child.pid().as_raw_nonzero()));
    File::from(go).write_all(b"x").unwrap();
    succeeded(child);
    seen
}

fn network(proc: &str) -> PathBuf {
    read_link(format!("{proc}/ns/net")).unwrap()
}

#[test]
fn one_network_with_nothing_in_it_is_for_all() {
    alone(
        "walls::jail",
        "shared::one_network_with_nothing_in_it_is_for_all",
        || {
            let (place, kept) = place();
            let host = Host::new();
            let others = |proc: &str| {
                let kinds = ["mnt", "pid", "ipc", "uts", "user"];
                kinds.map(|kind| read_link(format!("{proc}/ns/{kind}")).unwrap())
            };
            let (first, second) = look(place.path(), &host, |first| {
                let first = (network(first), others(first));
                (
                    first,
                    look(place.path(), &host, |second| {
                        (network(second), others(second))
                    }),
                )
            });
            assert_eq!(first.0, second.0);
            assert_ne!(first.0, network("/proc/self"));
            for (one, other) in first.1.iter().zip(&second.1) {
                assert_ne!(one, other, "all else is each one's own");
            }
            // It outlives both, until it is taken away.
            assert_eq!(look(place.path(), &host, network), first.0);
            let forget = || prepared::forget(&Directory::open(place.path()).unwrap()).unwrap();
            forget();
            assert!(!kept.exists());
            forget();
            assert_ne!(look(place.path(), &host, network), first.0);
            forget();
        },
    );
}

/// Has a process without threads do something in a network namespace of its own, and mount that.
fn keep(kept: &Path, act: impl FnOnce()) {
    File::create(kept).unwrap();
    let here = File::open("/proc/self/ns/net").unwrap();
    namespaces::unshare(libc::CLONE_NEWNET).unwrap();
    act();
    mount_bind("/proc/self/ns/net", kept).unwrap();
    let network = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&here), network).unwrap();
}

#[test]
fn a_network_that_is_not_as_it_has_to_be_is_nobodys() {
    alone(
        "walls::jail",
        "shared::a_network_that_is_not_as_it_has_to_be_is_nobodys",
        || {
            let (place, kept) = place();
            let host = Host::new();
            let ip = |arguments: &'static [&str]| {
                move || {
                    let status = std::process::Command::new("ip").args(arguments).status();
                    assert!(status.unwrap().success());
                }
            };
            let unfit: [(&str, &dyn Fn()); 5] = [
                ("the host's", &|| {
                    File::create(&kept).unwrap();
                    mount_bind("/proc/self/ns/net", &kept).unwrap();
                }),
                ("of another kind", &|| {
                    File::create(&kept).unwrap();
                    mount_bind("/proc/self/ns/uts", &kept).unwrap();
                }),
                ("with loopback", &|| {
                    keep(&kept, ip(&["link", "set", "lo", "up"]))
                }),
                ("with a bridge", &|| {
                    keep(&kept, ip(&["link", "add", "b0", "up", "type", "bridge"]));
                }),
                ("none, and somebody is about to make one", &|| {
                    let spot = File::create(&kept).unwrap();
                    assert!(kvmlet_sys::lock::try_acquire(&spot).unwrap());
                    std::mem::forget(spot);
                }),
            ];
            for (what, prepare) in unfit {
                prepare();
                let (one, other) = look(place.path(), &host, |first| {
                    (network(first), look(place.path(), &host, network))
                });
                assert_ne!(one, other, "{what}");
                let interfaces = look(place.path(), &host, |proc| {
                    read_to_string(format!("{proc}/net/dev")).unwrap()
                });
                assert!(!interfaces.contains("b0:"), "{what}: {interfaces}");
                let _ = rustix::mount::unmount(&kept, rustix::mount::UnmountFlags::DETACH);
                std::fs::remove_file(&kept).unwrap();
            }
        },
    );
}
