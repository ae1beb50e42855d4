//! What is to be true in the end: of the book, and of the host.

use super::client::keeper;
use super::{STATE, Scene};
use crate::harness::patience::eventually;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

impl Scene {
    /// Waits until nothing is on its way: started, or started again.
    pub fn settle(&self) {
        eventually("all run, or have ended", || {
            let on_the_way = |row: &Value| {
                row["State"] == "restarting" || row["State"] == "created" && self.is_kept(row)
            };
            !self.list().iter().any(on_the_way)
        });
        // The supervisor of one that was killed may not have noticed.
        eventually("processes and book are of one mind", || {
            let said = self.list();
            let said = said.iter().filter(|row| self.is_kept(row));
            let said: BTreeSet<_> = said.map(|row| row["ID"].as_str().unwrap().into()).collect();
            said == self.kept()
        });
    }

    /// Is there a supervisor for it?
    fn is_kept(&self, row: &Value) -> bool {
        let inspected = self.inspect(row["ID"].as_str().unwrap());
        inspected.is_some_and(|found| keeper(&found).is_some())
    }

    /// Ids for which there is a supervisor.
    fn kept(&self) -> BTreeSet<String> {
        let lines = self
            .sandbox
            .processes()
            .into_iter()
            .filter_map(command_line);
        let kept = lines.filter_map(|line| {
            let words: Vec<&str> = line.split('\0').collect();
            let keeps = words.get(1) == Some(&"keep");
            words
                .into_iter()
                .rfind(|word| keeps && word.len() == 64)
                .map(String::from)
        });
        kept.collect()
    }

    /// Is what the book says what was done?
    pub fn compare(&self) {
        let listed = self.list();
        let diary = &self.diary;
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        for row in &listed {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let (id, name) = (text("ID"), text("Names"));
            if !names.insert(name.clone()) {
                diary.violation(format!("{id} has the name {name}, as another"));
            }
            if diary.was_removed(&id) {
                diary.violation(format!("{id} was removed, and is there"));
            }
            self.compare_one(&id, &name);
            ids.insert(id);
        }
        for id in diary.begun() {
            if !ids.contains(&id) && diary.is_untouched(&id, &id) {
                diary.violation(format!("{id} was begun, removed by nobody, and is gone"));
            }
        }
        self.events_are_whole();
    }

    fn compare_one(&self, id: &str, name: &str) {
        let violation = |text: String| self.diary.violation(format!("{id} ({name}): {text}"));
        let Some(found) = self.inspect(id) else {
            return violation("is listed, and not there".into());
        };
        let act = found["Labels"]["act"].as_str().unwrap_or_default();
        let Some(made) = self.diary.made(act) else {
            return violation("nobody has made it".into());
        };
        let state = &found["State"];
        let (status, code) = (state["Status"].as_str().unwrap(), &state["ExitCode"]);
        let untouched = self.diary.is_untouched(id, name);
        let fits = match (status, made.code) {
            ("running", None) => self.answers(id),
            ("paused", None) => self.kvmlet(&["unpause", id]).code == 0 && self.answers(id),
            ("exited", Some(own)) if untouched => {
                *code == own && found["RestartCount"] == made.restarts
            }
            // By itself, or by what was done to it.
            ("exited", own) => {
                let codes = [Some(125), Some(137), Some(143), own.map(u64::from)];
                !untouched && codes.contains(&code.as_u64()) && code.as_u64().is_some()
            }
            ("dead", _) => self.diary.was_killed(id),
            // It was killed before it was begun, which nobody but a supervisor can be.
            ("created", _) => !untouched,
            _ => false,
        };
        if !fits {
            violation(format!("{made:?} is {state}, untouched: {untouched}"));
        }
    }

    /// Does its guest do something?
    fn answers(&self, id: &str) -> bool {
        let ended = self.kvmlet(&["exec", id, "out=there", "exit=7"]);
        (ended.code, &*ended.out) == (7, "there\n")
    }

    /// Are events numbered without a gap?
    fn events_are_whole(&self) {
        let ended = self.kvmlet(&["events", "--since", "#0", "--until", "0s"]);
        let events = ended.out.lines().map(serde_json::from_str::<Value>);
        let numbers: Vec<u64> = events
            .map(|event| event.unwrap()["sequence"].as_u64().unwrap())
            .collect();
        if !numbers.is_sorted_by(|one, next| one + 1 == *next) {
            self.diary.violation("events are missing".into());
        }
    }

    /// Removes all instances.
    pub fn clear(&self) {
        for row in self.list() {
            let ended = self.kvmlet(&["rm", "-f", row["ID"].as_str().unwrap()]);
            if ended.code != 0 {
                self.diary
                    .violation(format!("cannot be removed: {}", ended.err));
            }
        }
    }

    /// Looks for all that instances have.
    pub fn nothing_is_left(&self, seed: u64) {
        eventually("the last processes are gone", || {
            self.sandbox.processes().is_empty()
        });
        // What killed ones have left is cleared away by the next.
        let guest = crate::harness::program("power_off").display().to_string();
        let next = [
            "boot",
            "-m",
            "16M",
            "--cpu-quota",
            "0.1",
            "-p",
            "127.0.0.1::80",
            "--kernel",
            &guest,
        ];
        let ended = self.kvmlet(&next);
        assert_eq!(ended.code, 0, "{}", ended.err);
        // Its own network is taken down by a process that outlives it.
        eventually(&format!("seed {seed}: no notes are left"), || {
            self.sandbox.left_over().is_empty()
        });
        let mut left: Vec<String> = Vec::new();
        for directory in ["instances", "names", "pending"] {
            let path = Path::new(STATE).join("kvmlet").join(directory);
            let found = read_dir(path).unwrap().flatten();
            left.extend(found.map(|entry| entry.path().display().to_string()));
        }
        eventually(&format!("seed {seed}: no network is left"), || {
            let links = lines(Command::new("ip").args(["-o", "link"]));
            links.iter().all(|line| line.contains(": lo:"))
                && lines(Command::new("nft").args(["list", "ruleset"])).is_empty()
        });
        // Those of this network.
        let sockets = read_to_string("/proc/thread-self/net/unix").unwrap();
        left.extend(sockets.lines().skip(1).map(String::from));
        left.extend(self.locks());
        assert!(left.is_empty(), "seed {seed}: {left:#?}");
    }

    /// Locks of files of the book, which is a file system of its own.
    fn locks(&self) -> Vec<String> {
        let device = Path::new(STATE).metadata().unwrap().dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let its = format!(" {major:02x}:{minor:02x}:");
        let locks = read_to_string("/proc/locks").unwrap();
        let locks = locks.lines().filter(|line| line.contains(&its));
        locks.map(String::from).collect()
    }
}

fn command_line(pid: i32) -> Option<String> {
    read_to_string(format!("/proc/{pid}/cmdline")).ok()
}

fn lines(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(String::from).collect()
}
