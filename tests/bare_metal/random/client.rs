//! A client, which does things at random.

use super::diary::Made;
use super::{Ended, Scene};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use std::fs::read_to_string;

/// What they are called that are not called something else; there are more instances than names.
const NAMES: u64 = 16;

pub struct Client<'a> {
    scene: &'a Scene,
    number: u64,
    acts: u64,
    random: u64,
}

impl<'a> Client<'a> {
    pub fn new(scene: &'a Scene, seed: u64, number: u64) -> Self {
        // What differs by little is to be nothing alike.
        let random = (seed ^ number << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self {
            scene,
            number,
            acts: 0,
            random,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % limit
    }

    fn one_of<'t>(&mut self, among: &[&'t str]) -> &'t str {
        among[self.below(among.len() as u64) as usize]
    }

    pub fn act(mut self, times: u64) {
        for _ in 0..times {
            self.acts += 1;
            match self.below(100) {
                0..24 => self.run(),
                24..32 => self.stop(),
                32..44 => self.kill(),
                44..56 => self.remove(),
                56..64 => self.exec(),
                64..70 => self.logs(),
                70..77 => self.rename(),
                77..81 => drop(self.scene.list()),
                81..90 => self.stand_still(),
                90..96 => self.start(),
                _ => self.look(),
            }
        }
    }

    /// A name that somebody may have.
    fn name(&mut self) -> String {
        format!("name{}", self.below(NAMES))
    }

    /// Who is there, if anybody is: an id and a name.
    fn somebody(&mut self) -> Option<(String, String)> {
        self.somebody_of(|_| true)
    }

    fn somebody_of(&mut self, wanted: fn(&Value) -> bool) -> Option<(String, String)> {
        let mut listed = self.scene.list();
        listed.retain(wanted);
        if listed.is_empty() {
            return None;
        }
        let found = &listed[self.below(listed.len() as u64) as usize];
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        Some((text("ID"), text("Names")))
    }

    /// Does something to somebody, who is called by the id or by a name, and notes it. None if there is nobody.
    fn ask(
        &mut self,
        verb: &'static str,
        flags: &[&str],
        rest: &[&str],
    ) -> Option<(String, Ended)> {
        // Who executes something in one that stands still waits for half a minute.
        let (id, name) = match verb {
            "exec" => self.somebody_of(|row| row["State"] != "paused")?,
            _ => self.somebody()?,
        };
        self.scene.diary.called(&id, &name);
        let changes = !["exec", "logs", "inspect", "stats"].contains(&verb);
        // By a name it may be anybody, who is not known to be left alone from then on.
        let reference = match self.below(if changes { 12 } else { 4 }) {
            0 => name,
            1 if verb != "exec" => self.name(),
            _ => id,
        };
        if changes {
            self.scene.diary.touching(&reference);
        }
        let arguments = [&[verb], flags, &[&reference], rest].concat();
        let ended = self.scene.kvmlet(&arguments);
        self.note(verb, &reference, flags, &ended);
        Some((reference, ended))
    }

    fn note(&self, verb: &'static str, reference: &str, flags: &[&str], ended: &Ended) {
        let err = ended.err.trim_end().replace('\n', " | ");
        let line = format!("{reference} {flags:?}: {} {err}", ended.code);
        self.scene.diary.note(verb, line);
    }

    /// It has done it, or says for one of these reasons why not.
    fn expect(&self, verb: &str, reference: &str, ended: &Ended, reasons: &[&str]) {
        let known = || {
            let always = ["there is no instance", "is in use by another command"];
            let mut all = always.iter().chain(reasons);
            all.any(|reason| ended.err.contains(reason))
        };
        if ended.code != 0 && !known() {
            let (code, err) = (ended.code, &ended.err);
            let text = format!("{verb} {reference} ended with {code}: {err}");
            self.scene.diary.violation(text);
        }
    }

    fn run(&mut self) {
        let act = format!("{}.{}", self.number, self.acts);
        let (label, name) = (format!("act={act}"), self.name());
        let code = (self.below(3) == 0).then(|| self.below(100) as u8 + 1);
        let detached = code.is_none() || self.below(2) == 0;
        let made = Made {
            code,
            removed: self.below(5) == 0,
            restarts: self.below(2),
        };
        let kernel = self.scene.agent.display().to_string();
        let restart = format!("--restart=on-failure:{}", made.restarts);
        let (out, exit) = (
            format!("out={act}"),
            code.map(|code| format!("exit={code}")),
        );
        let mut arguments = vec!["run", "--kernel", &kernel, "-m", "16m", "--label", &label];
        if detached {
            arguments.push("-d");
        }
        if self.below(4) > 0 {
            arguments.extend(["--name", &name]);
        }
        match made.removed {
            true => arguments.push("--rm"),
            false if made.restarts > 0 && detached => arguments.push(&restart),
            false => {}
        }
        arguments.extend(
            self.one_of(&[
                "",
                "",
                "--cpus=0.2",
                "--net=egress=none",
                "-p=127.0.0.1::80",
            ])
            .split_terminator(' '),
        );
        arguments.extend(["root", &out, exit.as_deref().unwrap_or("stay")]);
        let restarts = if arguments.contains(&&*restart) {
            made.restarts
        } else {
            0
        };
        self.scene.diary.making(
            &act,
            Made {
                restarts,
                ..made.clone()
            },
        );
        let ended = self.scene.kvmlet(&arguments);
        self.note("run", &act, &arguments[7..], &ended);
        let killed = [
            "its supervisor",
            "it was stopped before it ran",
            "the VM has ended",
            "the VM's process",
            "was killed",
            "cannot go on",
        ];
        let reasons = [&["the name `"][..], &killed].concat();
        match (detached, ended.code) {
            (true, 0) if made.removed => {}
            (true, 0) => {
                let id = ended.out.trim();
                if arguments.contains(&&*name) {
                    self.scene.diary.called(id, &name);
                }
                self.scene.diary.begins(id);
            }
            (true, _) => self.expect("run", &act, &ended, &reasons),
            // Whoever stops it meanwhile, or kills it.
            (false, 137 | 143) => {}
            (false, found) if Some(found) == code.map(i32::from) => {
                if ended.out != format!("{act}\n") {
                    let text = format!("run {act} wrote {:?}", ended.out);
                    self.scene.diary.violation(text);
                }
            }
            (false, _) => self.expect("run", &act, &ended, &reasons),
        }
    }

    fn stop(&mut self) {
        let flags: &[&str] = match self.below(3) {
            0 => &[],
            1 => &["-t=0"],
            _ => &["-t=1"],
        };
        if let Some((reference, ended)) = self.ask("stop", flags, &[]) {
            self.expect("stop", &reference, &ended, &[]);
        }
    }

    fn remove(&mut self) {
        let flags: &[&str] = if self.below(2) == 0 { &[] } else { &["-f"] };
        let Some((reference, ended)) = self.ask("rm", flags, &[]) else {
            return;
        };
        if ended.code == 0 && reference.len() == 64 {
            self.scene.diary.removed(&reference, !flags.is_empty());
        }
        let runs = ["is running", "is paused", "is restarting"];
        self.expect(
            "rm",
            &reference,
            &ended,
            if flags.is_empty() { &runs } else { &[] },
        );
        if ended.code == 0 && reference.len() == 64 && self.scene.inspect(&reference).is_some() {
            let text = format!("{reference} is removed, and there");
            self.scene.diary.violation(text);
        }
    }

    fn exec(&mut self) {
        let words = ["out=hello", "exit=9"];
        let Some((reference, ended)) = self.ask("exec", &[], &words) else {
            return;
        };
        if ended.code == 9 && ended.out == "hello\n" {
            return;
        }
        let reasons = [
            "it does not run",
            // It is being started, or ends.
            "it has no channel now",
            "its guest listens to nobody",
            "has ended before the process has",
            // One that stands still, since it was looked at.
            "its guest has not answered in",
            "is paused",
        ];
        self.expect("exec", &reference, &ended, &reasons);
        if ended.code == 0 {
            self.scene
                .diary
                .violation(format!("exec {reference} did nothing"));
        }
    }

    fn logs(&mut self) {
        if let Some((reference, ended)) = self.ask("logs", &["-n=100"], &[]) {
            self.expect("logs", &reference, &ended, &[]);
        }
    }

    fn rename(&mut self) {
        let Some((id, old)) = self.somebody() else {
            return;
        };
        let new = self.name();
        self.scene.diary.called(&id, &old);
        self.scene.diary.called(&id, &new);
        let ended = self.scene.kvmlet(&["rename", &id, &new]);
        self.note("rename", &id, &[&new], &ended);
        self.expect("rename", &id, &ended, &["the name `"]);
    }

    fn stand_still(&mut self) {
        let verb = if self.below(3) < 2 {
            "pause"
        } else {
            "unpause"
        };
        let reasons = ["is not running", "already", "cannot pause", "cannot resume"];
        if let Some((reference, ended)) = self.ask(verb, &[], &[]) {
            self.expect(verb, &reference, &ended, &reasons);
        }
    }

    fn start(&mut self) {
        let verb = if self.below(2) == 0 {
            "start"
        } else {
            "restart"
        };
        let flags: &[&str] = if verb == "restart" { &["-t=1"] } else { &[] };
        let reasons = [
            "is removed when it has ended",
            "is running",
            "is paused",
            "is restarting",
            "its supervisor",
            "it was stopped before it ran",
            "the VM",
        ];
        if let Some((reference, ended)) = self.ask(verb, flags, &[]) {
            self.expect(verb, &reference, &ended, &reasons);
        }
    }

    fn look(&mut self) {
        let (verb, flags): (_, &[&str]) = match self.below(2) {
            0 => ("inspect", &[]),
            _ => ("stats", &["--no-stream", "--format=json"]),
        };
        if let Some((reference, ended)) = self.ask(verb, flags, &[]) {
            self.expect(verb, &reference, &ended, &["is not running"]);
        }
    }

    /// Kills an instance's supervisor, its VM's supervisor or its VM, or cuts its power by the command.
    fn kill(&mut self) {
        let who = self.below(4);
        if who == 3 {
            if let Some((reference, ended)) = self.ask("kill", &[], &[]) {
                self.expect("kill", &reference, &ended, &["is not running"]);
            }
            return;
        }
        let Some((id, _)) = self.somebody() else {
            return;
        };
        let keeper = self.scene.inspect(&id).and_then(|found| keeper(&found));
        let Some(mut chain) = keeper.map(|keeper| vec![keeper]) else {
            return;
        };
        while let Some(child) = chain.last().and_then(|pid| first_child(*pid)) {
            chain.push(child);
        }
        let Some(pid) = chain.get(who as usize) else {
            return;
        };
        // Whoever has the number now may be somebody else, who has nothing to do with this. All that a supervisor forks is
        // called as it is; a process is told from another program of the same number, and from other instances.
        let Some(pidfd) =
            Pid::from_raw(*pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        else {
            return;
        };
        let line = read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if !line.contains(&*id) {
            return;
        }
        self.scene.diary.touching(&id);
        if who == 0 {
            self.scene.diary.killing(&id);
        }
        let what = [
            "kill -9 supervisor",
            "kill -9 VM's supervisor",
            "kill -9 VM",
        ][who as usize];
        let killed = pidfd_send_signal(pidfd, Signal::KILL);
        self.scene
            .diary
            .note(what, format!("{id}: {pid} {killed:?}"));
    }
}

/// The supervisor of an instance, while it lives.
pub fn keeper(inspected: &Value) -> Option<i32> {
    let pid = inspected["State"]["Pid"].as_i64()?;
    i32::try_from(pid).ok().filter(|pid| *pid > 0)
}

/// The VM's supervisor of an instance's, and the VM of that.
pub fn first_child(pid: i32) -> Option<i32> {
    let children = read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
