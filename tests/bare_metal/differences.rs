//! Snapshots of what has changed since another one.

use crate::cli::{run, text};
use crate::harness::patience::eventually;
use crate::harness::{Test, deadline};
use crate::instances::script;
use crate::snapshot::{Worker, place};
use kvmlet_control::{Connection, Order};
use kvmlet_sys::written::Written;
use kvmlet_vmm::snapshot::Saved;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("a_difference_has_the_pages_that_were_written", pages),
    ("a_difference_is_taken_ten_times_over", ten_times),
    ("a_difference_without_its_base_is_refused", refused),
    ("a_difference_is_noted_with_its_base", noted),
    ("a_difference_that_is_given_up_loses_nothing", given_up),
    ("a_difference_has_zeros_where_a_balloon_took_pages", balloon),
];

/// Pages that are filled at first, and those of them that are written to in each round.
const PAGES: u64 = 4096;
const WINDOW: u64 = 100;
/// What a guest writes beside that: its stack, its variables, what devices have told it.
const BESIDE: u64 = 24;
const PAGE: u64 = 4096;

fn command(verb: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    command.arg(verb);
    command
}

/// A guest that writes to its window when it is told.
struct Steps {
    worker: Worker,
    socket: PathBuf,
    /// Where its window is, and how often it was written to.
    start: u64,
    round: u64,
}

impl Steps {
    fn boot(socket: PathBuf, window: u64) -> Self {
        let cmdline = format!("pages={PAGES} window={window} steps=1");
        let worker = Worker::boot("memory_writer", &cmdline, &["-m", "64M"], &socket);
        Self::of(worker, socket)
    }

    fn restore(file: &Path, arguments: &[&str], socket: PathBuf) -> Self {
        let mut worker = Worker::restore(file, arguments, &socket);
        worker.say(b"w");
        Self::of(worker, socket)
    }

    fn of(worker: Worker, socket: PathBuf) -> Self {
        let mut steps = Self {
            worker,
            socket,
            start: 0,
            round: 0,
        };
        steps.listen();
        steps
    }

    fn listen(&mut self) {
        let line = loop {
            match self.worker.line() {
                line if line.starts_with("round=") => break line,
                line => assert!(!line.contains("failed"), "{line}"),
            }
        };
        let (round, start) = line["round=".len()..].split_once(" start=0x").unwrap();
        self.round = round.parse().unwrap();
        self.start = u64::from_str_radix(start, 16).unwrap();
    }

    /// Another round.
    fn step(&mut self) {
        let before = self.round;
        self.worker.say(b"w");
        self.listen();
        assert_eq!(self.round, before + 1);
    }

    fn save(&self, file: &Path) {
        self.worker.save(file);
    }

    fn try_save_since(&self, base: &Path, file: &Path) -> Output {
        let mut save = command("snapshot");
        run(save.arg("--base").args([base, &self.socket, file]))
    }

    fn save_since(&self, base: &Path, file: &Path) {
        let output = self.try_save_since(base, file);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    fn refused_since(&self, base: &Path, file: &Path) -> String {
        let output = self.try_save_since(base, file);
        assert!(!output.status.success());
        assert!(!file.exists());
        text(&output.stderr)
    }

    /// Looks at all pages on its way.
    fn end(self) {
        let rest = self.worker.end();
        assert!(!rest.iter().any(|line| line.contains("failed")), "{rest:?}");
    }
}

/// Does this host tell what is written to? Where it does not, a VM says so.
fn is_told() -> bool {
    if Written::new().is_ok() {
        return true;
    }
    let (_place, file) = place();
    let vm = Steps::boot(file("a"), WINDOW);
    vm.save(&file("base"));
    let said = vm.refused_since(&file("base"), &file("new"));
    assert!(said.contains("is not known"), "{said}");
    vm.end();
    println!("SKIPPED: a kernel before Linux 6.7");
    false
}

fn base_argument(base: &Path) -> [String; 2] {
    ["--base".into(), base.to_str().unwrap().into()]
}

/// Restores a difference that is whole, which is looked at.
fn restore(file: &Path, base: &Path, more: &[&str], socket: PathBuf) -> Steps {
    let base = base_argument(base);
    let base = base.each_ref().map(String::as_str);
    Steps::restore(file, &[&base, more].concat(), socket)
}

/// Only what the guest has written to is in it: whether it runs, or stands still, or goes on from a file.
fn pages() {
    if !is_told() {
        return;
    }
    let (_place, file) = place();
    let base = file("base");
    let mut vm = Steps::boot(file("a"), WINDOW);
    vm.save(&base);
    let expect = |name: &str, start: u64| {
        let saved = Saved::open_over(&file(name), &base).unwrap();
        saved.verify().unwrap();
        let pages = &saved.difference.as_ref().unwrap().pages;
        let window = start..start + WINDOW * PAGE;
        assert!(pages.parts_in(window.clone()).eq([window]), "{name}");
        let beside = pages.count() - WINDOW;
        assert!(beside <= BESIDE, "{name}: {beside} pages beside the window");
        let found = file(name).metadata().unwrap();
        let stored = found.blocks() * 512;
        assert!(
            stored <= (WINDOW + BESIDE) * PAGE + (128 << 10),
            "{name}: {stored} bytes"
        );
        assert_eq!(found.mode() & 0o7777, 0o600);
    };
    vm.step();
    vm.save_since(&base, &file("first"));
    expect("first", vm.start);
    // What had changed by then still has.
    vm.save_since(&base, &file("second"));
    expect("second", vm.start);
    vm.step();
    vm.worker.ask(Order::Pause);
    vm.save_since(&base, &file("paused"));
    expect("paused", vm.start);
    vm.worker.ask(Order::Resume);
    // In the place of an older one.
    vm.step();
    vm.save_since(&base, &file("second"));
    vm.end();
    for (name, rounds, walls) in [
        ("first", 2, &[][..]),
        ("paused", 3, &["--no-jail"]),
        ("second", 4, &[]),
    ] {
        let more = [walls, &["--verify"]].concat();
        let again = restore(&file(name), &base, &more, file("b"));
        assert_eq!(again.round, rounds + 1, "{name}");
        again.save_since(&base, &file("again"));
        expect("again", again.start);
        again.end();
    }
    // One that was saved while it stood still is a base as well.
    let mut vm = Steps::boot(file("c"), WINDOW);
    vm.worker.ask(Order::Pause);
    vm.save(&base);
    vm.worker.ask(Order::Resume);
    vm.step();
    vm.save_since(&base, &file("first"));
    expect("first", vm.start);
    vm.end();
}

/// What goes on from a difference is saved as one, and so on: all of them need the first file, and no other one.
fn ten_times() {
    if !is_told() {
        return;
    }
    let (_place, file) = place();
    let base = file("base");
    let mut vm = Steps::boot(file("vm"), WINDOW);
    vm.save(&base);
    for time in 0..10 {
        vm.step();
        let new = file(&format!("{time}"));
        vm.save_since(&base, &new);
        vm.end();
        // None but the last is needed.
        if time > 0 {
            std::fs::remove_file(file(&format!("{}", time - 1))).unwrap();
        }
        let walls: &[&str] = if time % 2 == 0 { &[] } else { &["--no-jail"] };
        vm = restore(&new, &base, &[walls, &["--verify"]].concat(), file("vm"));
        assert_eq!(vm.round, 2 * time + 3);
    }
    let stored = file("9").metadata().unwrap().blocks() * 512;
    assert!(
        stored < (WINDOW + 2 * BESIDE) * PAGE + (128 << 10),
        "{stored}"
    );
    vm.end();
}

fn refused() {
    if !is_told() {
        return;
    }
    let (_place, file) = place();
    let (base, new) = (file("base"), file("new"));
    let mut vm = Steps::boot(file("a"), WINDOW);
    vm.save(&base);
    vm.step();
    vm.save_since(&base, &new);
    // What is no base, or not this VM's, or not the last.
    let said = vm.refused_since(&new, &file("x"));
    assert!(
        said.contains("nobody's base") && said.contains("leave out --base"),
        "{said}"
    );
    let said = vm.refused_since(&file("none"), &file("x"));
    assert!(said.contains("none"), "{said}");
    let mut other = Steps::boot(file("b"), WINDOW);
    let said = other.refused_since(&base, &file("x"));
    assert!(
        said.contains("is not known") && said.contains("without a base"),
        "{said}"
    );
    other.step();
    other.save(&file("other"));
    other.end();
    let own = vm.try_save_since(&base, &base);
    assert!(text(&own.stderr).contains("name another file"), "{own:?}");
    vm.save(&file("whole"));
    let said = vm.refused_since(&base, &file("x"));
    assert!(said.contains("is not known"), "{said}");
    vm.save_since(&file("whole"), &file("third"));
    vm.end();
    // What it is restored with.
    let said = |arguments: &[&Path]| {
        let mut restore = command("restore");
        restore.args(arguments).arg(&new);
        let output = run(&mut restore);
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        text(&output.stderr)
    };
    let with = Path::new("--base");
    for (arguments, reason) in [
        (&[][..], "say which file that is: --base FILE"),
        (&[with, &file("none")], "no such file"),
        (&[with, &file("other")], "is not the snapshot since which"),
        (&[with, &file("third")], "nobody's base"),
        (&[with, &new], "nobody's base"),
    ] {
        let said = said(arguments);
        assert!(said.contains(reason), "{reason}: {said}");
    }
    // Another program has all of it, or none.
    let both = run(command("restore").args([with, &base, Path::new("--memory-from"), &base, &new]));
    assert!(
        text(&both.stderr).contains("cannot be used with"),
        "{both:?}"
    );
    let whole = run(command("restore")
        .arg("--base")
        .args([&base, &file("other")]));
    assert!(
        text(&whole.stderr).contains("leave out --base"),
        "{whole:?}"
    );
    // Changed in a page that the difference does not have: who looks finds it.
    let changed = File::options().write(true).open(&base).unwrap();
    let place = (16 << 20) + (60 << 20);
    changed.write_all_at(&[1], place).unwrap();
    let told = said(&[with, &base, Path::new("--verify")]);
    assert!(
        told.contains("base`") && told.contains("has changed"),
        "{told}"
    );
    changed.set_len(place).unwrap();
    let told = said(&[with, &base]);
    assert!(
        told.contains("base`") && told.contains("cut short"),
        "{told}"
    );
}

/// An instance's: the book knows its base, which is kept as long as it is needed.
fn noted() {
    if !is_told() {
        return;
    }
    script(
        r#"
        $K run -d --name web -m 32m --kernel "$AGENT" root out=ready stay >/dev/null
        $K snapshot web base 2>/dev/null; id=$($K snapshot ls -q)
        $K snapshot --base $id web new 2>err; sed 's/[0-9.]* ms/N ms/' err
        [ "$($K snapshot inspect --format '{{.Base}} {{.Status}}' new)" = "$PWD/base ready" ]
        [ $(stat -c %b new) -lt $(($(stat -c %b base) / 2)) ]
        no() { what=$1; shift; ! $K "$@" 2>err >/dev/null && grep -o "$what" err; }
        no 'is the base of snapshot' snapshot rm base; no 'is the base of snapshot' snapshot web base
        no 'is the base of snapshot' snapshot /var/lib/kvmlet/instances/*/control.sock base
        # An archive has all of it.
        $K snapshot export new new.tar.zst; $K snapshot import --alone new.tar.zst all >/dev/null; no 'was saved had' restore --verify all; rm all new.tar.zst; ls
        $K restore new -d --verify --name two >/dev/null; $K exec two out=two exit=0
        # Whose base is cut short says so when it ends.
        cp --sparse=always base kept; $K restore new -d --name cut >/dev/null; truncate -s 100 base
        $K exec cut out=never exit=0 2>err || true; wait_for cut exited
        $K logs --console cut 2>&1 | grep -o '/base`, which the VM went on from, was cut short'; mv kept base
        # Once it was moved, that is to be said once.
        mv base moved; $K snapshot ls --format '{{.Status}}' | sort
        no 'the base, as it was then: --base FILE' restore new -d
        $K restore new --base moved -d --name three >/dev/null; $K exec three out=three exit=0
        $K restore new -d --name four >/dev/null; $K exec four out=four exit=0
        # What goes on from it is saved as another difference to the same file.
        $K snapshot --base moved four second 2>/dev/null; $K snapshot inspect --format '{{.Status}}' second
        $K snapshot rm -f moved | wc -l; $K snapshot ls --format '{{.Status}}'
        $K exec four out=still exit=0; $K snapshot rm new second | wc -l
        # Of two at once one is refused.
        for _ in 1 2 3 4 5 6; do
            $K snapshot web b 2>/dev/null; $K snapshot --base ./b web d 2>/dev/null & $K snapshot rm ./b >/dev/null 2>&1 || true; wait
            [ ! -e d ] || [ -e b ] || echo lost; $K snapshot rm -f ./d ./b >/dev/null 2>&1 || true
        done; ls
        "#,
        "kvmlet: `web` stood still for N ms\nis the base of snapshot\nis the base of snapshot\nis the base of snapshot\nwas saved had\n\
         base\nerr\nnew\nroot\ntwo\n/base`, which the VM went on from, was cut short\nmissing\nunusable\nthe base, as it was then: --base FILE\nthree\nfour\nready\n1\nunusable\nunusable\n\
         still\n2\nerr\nroot\n",
    );
}

/// Whoever writes it is gone in the middle of that: there is no file, and the next has what that one would have had.
fn given_up() {
    if !is_told() {
        return;
    }
    let (_place, file) = place();
    let base = file("base");
    let mut vm = Steps::boot(file("a"), PAGES);
    vm.save(&base);
    vm.step();
    let id = Saved::open(&base).unwrap().state.id;
    let mut control = Connection::to(&vm.socket).unwrap();
    let saving = control.save_since(id, deadline()).unwrap();
    let mut some = vec![0; 1 << 20];
    File::from(saving.pieces).read_exact(&mut some).unwrap();
    drop(control);
    let mut killed = command("snapshot");
    let mut killed = killed
        .arg("--base")
        .args([&base, &vm.socket, &file("killed")])
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(15));
    killed.kill().unwrap();
    // It may have been whole by then.
    let has_ended = killed.wait().unwrap().success();
    assert_eq!(file("killed").exists(), has_ended);
    eventually("the VM is not being saved any more", || {
        let output = vm.try_save_since(&base, &file("new"));
        output.status.success()
    });
    let mut names: Vec<_> = std::fs::read_dir(base.parent().unwrap())
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .collect();
    names.retain(|name| name != "killed");
    names.sort_unstable();
    assert_eq!(names, ["a", "base", "new"]);
    vm.end();
    let mut again = restore(&file("new"), &base, &["--verify"], file("b"));
    again.step();
    again.end();
}

/// What was in memory when the base was saved, and the host has back since, reads as in a whole snapshot of that moment.
fn balloon() {
    const TAKEN: u64 = 2048;
    if !is_told() {
        return;
    }
    let (_place, file) = place();
    let cmdline = format!("mmio=0xd0002000 pages={PAGES}");
    let mut vm = Worker::boot(
        "virtio_balloon",
        &cmdline,
        &["-m", "64M", "--balloon"],
        &file("a"),
    );
    assert!(vm.line().starts_with("features="));
    vm.say(b"t");
    assert_eq!(vm.line(), format!("touched={PAGES}"));
    let [base, new, whole] = ["base", "new", "whole"].map(&file);
    vm.save(&base);
    let mib = (TAKEN * PAGE / (1 << 20)) as u32;
    vm.ask(Order::Balloon { mib });
    assert_eq!(vm.line(), format!("balloon={TAKEN}"));
    vm.say(b"t");
    assert_eq!(vm.line(), format!("touched={}", PAGES - TAKEN));
    vm.ask(Order::Pause);
    let mut save = command("snapshot");
    let saved = run(save.arg("--base").args([&base, &file("a"), &new]));
    assert!(saved.status.success(), "{}", text(&saved.stderr));
    vm.save(&whole);
    vm.ask(Order::Resume);
    vm.end();
    let saved = Saved::open_over(&new, &base).unwrap();
    saved.verify().unwrap();
    let pages = &saved.difference.as_ref().unwrap().pages;
    let [base, new, whole] = [base, new, whole].map(|file| File::open(file).unwrap());
    let read = |file: &File, place: u64| {
        let mut page = [0; PAGE as usize];
        file.read_exact_at(&mut page, (16 << 20) + place).unwrap();
        page
    };
    let mut zeros = 0;
    for place in (0..64 << 20).step_by(PAGE as usize) {
        let is_new = pages.parts_in(place..place + PAGE).next().is_some();
        let has = read(if is_new { &new } else { &base }, place);
        assert!(has == read(&whole, place), "{place:#x}");
        zeros += u64::from(is_new && has == [0; PAGE as usize]);
    }
    assert!((TAKEN..TAKEN + BESIDE).contains(&zeros), "{zeros}");
}
