//! What others do while kvmlet starts and runs, and where the same user is somebody else.

use super::{ATTACKER, PLAIN, Scene, VICTIM, Who};
use crate::cli::text;
use crate::harness::patience::eventually;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Somebody makes and removes links, and directories, as fast as he can.
pub fn races() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: other users are played by root");
    }
    let race = || {
        let mut scene = Scene::enter();
        let before = scene.picture();
        let over = AtomicBool::new(false);
        let arguments = ["boot", "--kernel", "/mnt/bin/ready", "--stats", STATS];
        std::thread::scope(|scope| {
            scope.spawn(|| take_names(&over));
            for _ in 0..40 {
                scene.script(0, "rm -rf /tmp/kvmlet-$V /tmp/stats.json 2>/dev/null || :");
                let output = scene.kvmlet(Who::Victim, &[], &arguments);
                let code = output.status.code();
                assert!(matches!(code, Some(0 | 125)), "{output:?}");
            }
            over.store(true, Ordering::Relaxed);
        });
        let mut after = scene.picture();
        after.remove(Path::new(STATS));
        super::check_picture(&PLAIN, &before, &after);
    };
    std::thread::spawn(race).join().unwrap();
}

const STATS: &str = "/tmp/stats.json";

/// What the attacker does all the time.
fn take_names(over: &AtomicBool) {
    // SAFETY: numbers; the system call, unlike the C library's function, is about this thread only.
    let became = unsafe { libc::syscall(libc::SYS_setresuid, ATTACKER, ATTACKER, ATTACKER) };
    assert_eq!(became, 0);
    let runtime = Path::new("/tmp/kvmlet-23002");
    while !over.load(Ordering::Relaxed) {
        // Mostly the victim has the name, and all of this fails.
        let _ = symlink("/home/victim/canary", STATS);
        let _ = symlink("/home/victim/empty", runtime);
        let _ = fs::remove_file(runtime);
        let _ = fs::create_dir(runtime);
        let _ = fs::remove_dir(runtime);
        let _ = fs::remove_file(STATS);
    }
}

/// A lock of the victim's that a process of the victim's has for a while.
pub fn held_lock() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: other users are played by root");
    }
    let wait = || {
        let mut scene = Scene::enter();
        scene.script(
            VICTIM,
            "mkdir -m 700 /tmp/kvmlet-$V; mkdir /tmp/kvmlet-$V/ledger",
        );
        scene.background(
            VICTIM,
            "cd /tmp/kvmlet-$V/ledger; exec flock -F lock sh -c '>told; exec sleep 2'",
        );
        eventually("it is held", || {
            fs::exists("/tmp/kvmlet-23002/ledger/told").unwrap()
        });
        let since = Instant::now();
        let output = scene.kvmlet(Who::Victim, &[], &["boot", "--kernel", "/mnt/bin/ready"]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{message}");
        assert!(since.elapsed().as_millis() > 1000);
        let told = "waiting for the lock `/tmp/kvmlet-23002/ledger/lock`, which process";
        assert!(
            message.contains(told) && message.contains("(sleep) has"),
            "{message}"
        );
    };
    std::thread::spawn(wait).join().unwrap();
}

/// systemd-tmpfiles removes from /tmp what is old, unless the directory is locked. Many VMs can have it at once.
pub fn cleaners() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: other users are played by root");
    }
    let clean = || {
        let mut scene = Scene::enter();
        for _ in 0..2 {
            scene.background(VICTIM, "exec /mnt/bin/kvmlet boot --kernel /mnt/bin/spin");
        }
        let claims = || fs::read_dir("/tmp/kvmlet-23002/ledger").map_or(0, Iterator::count);
        // Two notes, a lock, and what all come to.
        eventually("both are noted", || claims() == 4);
        scene.script(0, "! flock -n /tmp/kvmlet-$V true");
        drop(scene);
        assert_eq!(claims(), 4, "they were killed");
        let unlocked = "flock -n /tmp/kvmlet-23002 true";
        // Those who were killed take a moment to go.
        eventually("the lock is free", || {
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", unlocked]).status().unwrap().success()
        });
    };
    std::thread::spawn(clean).join().unwrap();
}

/// `unshare -r`, where everybody is root.
pub fn user_namespace() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: other users are played by root");
    }
    let inside = || {
        let scene = Scene::enter();
        let boot = "unshare -r /mnt/bin/kvmlet boot --no-jail --kernel /mnt/bin/ready";
        // Two users who are both root of a namespace do not get in each other's way.
        for user in [ATTACKER, VICTIM] {
            scene.script(user, boot);
            scene.script(user, &format!("test -O /tmp/kvmlet-{user}/ledger/lock"));
        }
        // It is the same directory outside.
        let output = scene.kvmlet(Who::Victim, &[], &["boot", "--kernel", "/mnt/bin/ready"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        scene.script(0, "test \"$(ls /tmp | wc -l)\" = 2; test ! -e /run/kvmlet");
        // After a login, too, though the namespace has forgotten where that was.
        scene.script(
            0,
            "mkdir -p /run/user/$V; chown $V /run/user/$V; chmod 700 /run/user/$V",
        );
        scene.script(VICTIM, boot);
        scene.script(VICTIM, "test -O /run/user/$V/kvmlet/ledger/lock");
        // Where /run is root's of the namespace, as in a container, that is the place.
        let container = "unshare -rm sh -euc 'mount -t tmpfs none /run; \
                         /mnt/bin/kvmlet boot --no-jail --kernel /mnt/bin/ready; test -O /run/kvmlet/ledger/lock'";
        scene.script(VICTIM, container);
    };
    std::thread::spawn(inside).join().unwrap();
}

/// The umask of whoever runs kvmlet is about results, and not about what the next kvmlet has to read.
pub fn umasks() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: other users are played by root");
    }
    let close = || {
        let scene = Scene::enter();
        for (mask, mode) in [("0777", "0"), ("0077", "600"), ("0022", "644")] {
            let boot = |program: &str, flags: &str| {
                format!(
                    "umask {mask}; exec /mnt/bin/{program} boot --kernel /mnt/bin/ready {flags}"
                )
            };
            scene.script(VICTIM, &boot("kvmlet", "--stats kvmlet-$V.json"));
            for _ in 0..2 {
                scene.script(VICTIM, &boot("kvmlet", ""));
                // With a lease, and interfaces that are borrowed.
                scene.script(ATTACKER, &boot("kvmlet-capable", "--net -p 8080:80"));
            }
            scene.script(0, &format!("test $(stat -c %a kvmlet-$V.json) = {mode}"));
            scene.script(0, "rm -r kvmlet-$V.json kvmlet-$V kvmlet-$A");
        }
    };
    std::thread::spawn(close).join().unwrap();
}
