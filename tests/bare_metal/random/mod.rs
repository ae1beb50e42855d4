//! Eight clients at once do things at random with the instances of one book, by the command, and kill processes that belong to
//! them. Then the book is compared with what was done, and when all instances are removed nothing else is there.
//!
//! `KVMLET_TEST_OPERATIONS=1000` says how many things are done, `KVMLET_TEST_SEED=N` which: what a client does follows from its
//! number and the seed, which is printed; what comes of it, from the others as well.

mod client;
mod diary;
mod traces;

use crate::harness::sandbox::Sandbox;
use crate::harness::{Test, patience::seconds, program};
use crate::ports::on_own_host;
use client::Client;
use diary::Diary;
use rustix::mount::{MountFlags, mount};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

pub const TESTS: &[Test] = &[(
    "whatever_is_done_and_killed_the_book_is_true_and_nothing_is_left",
    random,
)];

const CLIENTS: u64 = 8;
/// What all of them do, unless `KVMLET_TEST_OPERATIONS` has another number; less on a host that is slower than any.
const OPERATIONS: u64 = 400;
/// Where root has its book.
const STATE: &str = "/var/lib";

/// A host with a book, and what was done there.
struct Scene {
    sandbox: Sandbox,
    place: tempfile::TempDir,
    agent: PathBuf,
    diary: Diary,
}

/// How a command has ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Scene {
    fn set() -> Result<Self, String> {
        let place = tempfile::tempdir().unwrap();
        let (empty, image) = (place.path().join("empty"), place.path().join("root"));
        std::fs::create_dir(&empty).unwrap();
        let made = Command::new("mkfs.erofs").args([image, empty]).output();
        let made = made.map_err(|error| format!("mkfs.erofs: {error}"))?;
        assert!(made.status.success(), "{made:?}");
        let mode = Some(c"mode=755");
        mount("book", STATE, "tmpfs", MountFlags::empty(), mode).unwrap();
        Ok(Self {
            sandbox: Sandbox::new(1000)?,
            place,
            agent: program("agent"),
            diary: Diary::default(),
        })
    }

    /// `kvmlet` with these arguments, which ends in time, or is a violation.
    fn kvmlet(&self, arguments: &[&str]) -> Ended {
        let limit = seconds(120).as_secs().to_string();
        let output = self
            .sandbox
            .command("timeout")
            .args(["-k5", &limit, env!("CARGO_BIN_EXE_kvmlet")])
            .args(arguments)
            .current_dir(self.place.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        // What it was ended by, if it was not timeout.
        let code = output.status.code().unwrap_or(-1);
        if code == 124 || code == 137 && err.is_empty() && arguments[0] != "run" {
            self.diary
                .violation(format!("no end of {arguments:?} within {limit} s"));
        }
        if err.contains("panicked") {
            self.diary.violation(format!("{arguments:?}: {err}"));
        }
        Ended { code, out, err }
    }

    /// All instances, as `ps -a` has them.
    fn list(&self) -> Vec<Value> {
        let ended = self.kvmlet(&["ps", "-a", "--no-trunc", "--format", "json"]);
        if ended.code != 0 || !ended.err.is_empty() {
            self.diary
                .violation(format!("ps: {} {}", ended.code, ended.err));
        }
        let lines = ended.out.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// All that is known of one; none if it is gone.
    fn inspect(&self, id: &str) -> Option<Value> {
        let ended = self.kvmlet(&["inspect", id]);
        let found: Vec<Value> = serde_json::from_str(&ended.out).unwrap_or_default();
        found.into_iter().next()
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a whole number, not `{text}`")),
    )
}

fn random() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    on_own_host(|| {
        let scene = match Scene::set() {
            Ok(scene) => scene,
            Err(reason) => return println!("SKIPPED: {reason}"),
        };
        let by_time = || u64::from(std::process::id());
        let seed = number("KVMLET_TEST_SEED").unwrap_or_else(by_time);
        let operations =
            number("KVMLET_TEST_OPERATIONS").unwrap_or(OPERATIONS / seconds(1).as_secs());
        println!("{operations} operations of {CLIENTS} clients, KVMLET_TEST_SEED={seed}");
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (scene, share) = (&scene, operations / CLIENTS);
                scope.spawn(move || Client::new(scene, seed, number).act(share));
            }
        });
        println!("{} s; {}", begun.elapsed().as_secs(), scene.diary.counts());
        scene.settle();
        scene.compare();
        scene.clear();
        let said = scene.diary.violations();
        assert!(said.is_empty(), "seed {seed}: {said}");
        scene.nothing_is_left(seed);
    });
}
