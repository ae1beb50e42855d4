//! Supervisors of shell scripts instead of VMs.

use super::*;

#[allow(dead_code)] // only a part is needed here
#[path = "../../sys/alone.rs"]
mod alone;

use crate::logs::{Reader, Selection, Streams};
use crate::{Asked, End, InstanceId, State};
use kvmlet_spec::supervision::RestartPolicy;
use kvmlet_sys::first_thread;
use std::path::Path;
use std::process::{Command, Stdio};

/// What takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// This test as the supervisor, in a process of its own: signals are a process's.
const INSIDE: &str = "KVMLET_TEST_SUPERVISE";

struct Instance {
    place: tempfile::TempDir,
}

impl Instance {
    fn new(policy: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut asked = Asked::new(InstanceId::random().unwrap(), "script");
        asked.restart = policy.parse::<RestartPolicy>().unwrap();
        let instance = Self { place };
        instance
            .book()
            .create(Some(&"web".parse().unwrap()), asked)
            .unwrap();
        instance
    }

    fn book(&self) -> Book {
        Book::at(&self.place.path().join("book")).unwrap()
    }

    fn spawn(&self, script: &str, ready: bool) -> std::process::Child {
        let test = "supervision::tests::the_supervisor";
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--test-threads=1", test])
            .env(
                INSIDE,
                format!("{ready} {} {script}", self.place.path().display()),
            )
            // Where one is killed, its harness calls that a failure.
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn run(&self, script: &str, ready: bool) -> End {
        let mut child = self.spawn(script, ready);
        assert!(child.wait().unwrap().success());
        self.book()
            .find("web")
            .unwrap()
            .view(None)
            .unwrap()
            .end
            .unwrap()
    }

    fn reader(&self) -> Reader {
        let instance = self.book().find("web").unwrap();
        let all = Selection {
            streams: Streams::All,
            ..Selection::default()
        };
        Reader::open(instance.directory(), &all).unwrap()
    }

    fn said(&self) -> String {
        let mut reader = self.reader();
        let entries = std::iter::from_fn(|| reader.next().unwrap());
        let entries = entries
            .map(|entry| format!("{}: {}", entry.stream, String::from_utf8_lossy(&entry.text)));
        entries.collect()
    }

    fn told(&self) -> String {
        std::fs::read_to_string(self.place.path().join("told")).unwrap_or_default()
    }

    fn events(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.place.path().join("book/events")).unwrap();
        let event = |line: &str| {
            serde_json::from_str::<crate::events::Event>(line)
                .unwrap()
                .event
        };
        text.lines().map(event).collect()
    }

    fn until(&self, state: State) -> crate::View {
        let instance = self.book().find("web").unwrap();
        until(|| {
            let view = instance.view(None).unwrap();
            let instead = format!("{view:?}");
            (view.state == state).then_some(view).ok_or(instead)
        })
    }
}

/// Waits for what a test is about; what is seen instead, if it never comes.
#[track_caller]
fn until<T, E: std::fmt::Debug>(mut look: impl FnMut() -> Result<T, E>) -> T {
    let since = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) => assert!(since.elapsed() < PATIENCE, "{instead:?}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_supervisor() {
    let Ok(text) = std::env::var(INSIDE) else {
        return; // it is for the others
    };
    // SAFETY: of the two threads one waits for the other, and so holds no lock.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        alone::end(|| inside(&text));
    }
    let mut status = 0;
    // SAFETY: stores a number.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0);
}

fn inside(text: &str) {
    let words: Vec<&str> = text.splitn(3, ' ').collect();
    let (ready, place, script) = (words[0] == "true", Path::new(words[1]), words[2]);
    let book = Book::at(&place.join("book")).unwrap();
    let instance = book.find("web").unwrap();
    let asked = instance.asked().unwrap();
    let keeper = instance.own().unwrap().begin().unwrap();
    let command = || {
        // A small shell knows no descriptors above 9.
        let mut command = Command::new("bash");
        command.current_dir(place).args(["-c", script, "sh"]);
        command
    };
    let here: &dyn Fn() -> Here = &|| Box::new(run_here);
    let program = Program {
        resumes: false,
        command: &command,
        first: None,
        input: b"the configuration\n",
        here: (script == HERE).then_some(here),
        ready: ready.then_some("--ready"),
        channel: None,
        control: None,
        holds: None,
        well: &|| (),
        confine: || Ok(()),
    };
    let told =
        &mut |told: Step<'_>| std::fs::write(place.join("told"), format!("{told:?}")).unwrap();
    supervise(&book, keeper, &asked, &program, told).unwrap();
}

/// What is executed where a process that was forked from the supervisor has run before.
const HERE: &str = r#"echo "executed with $(wc -c) bytes"; printf r >&$2; exit 7"#;

/// Tells that it runs, and what it has: the bytes of its input, and the modes in which it has the lock and no other file open.
fn run_here(Handed { ready, control }: Handed) -> u8 {
    let input = std::io::read_to_string(std::io::stdin()).unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let open = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let locks = open.filter(|path| path.ends_with("lock")).count();
    let said = format!(
        "{} bytes, {locks} lock, {}\n",
        input.len(),
        control.is_none()
    );
    rustix::io::write(rustix::stdio::stdout(), said.as_bytes()).unwrap();
    rustix::io::write(rustix::stdio::stderr(), b"a warning\n").unwrap();
    rustix::io::write(&ready, b"r").unwrap();
    7
}

#[test]
fn what_is_run_in_a_forked_process_is_no_other_program() {
    let once = Instance::new("no");
    assert_eq!(code(&once.run(HERE, true)), 7);
    let mut said: Vec<_> = once.said().lines().map(String::from).collect();
    said.sort();
    let expected = ["kvmlet: a warning", "stdout: 0 bytes, 1 lock, true"];
    assert_eq!(said, expected);
    assert_eq!(once.told(), "Runs");
    let again = Instance::new("on-failure:2");
    assert_eq!(code(&again.run(HERE, true)), 7);
    // Who has learnt from the first where all is in it, knows nothing of the others.
    let said = again.said();
    let count = |what| said.matches(what).count();
    assert_eq!(
        (count("1 lock"), count("executed with 18 bytes")),
        (1, 2),
        "{said}"
    );
    assert_eq!(
        again.events(),
        [
            "start", "die", "restart", "start", "die", "restart", "start", "die"
        ]
    );
}

fn code(end: &End) -> u8 {
    match end {
        End::Told(outcome) => outcome.code,
        other => panic!("{other}"),
    }
}

#[test]
fn what_it_writes_and_how_it_ends_is_kept() {
    let web = Instance::new("no");
    let end = web.run(
        "read line; echo $line; echo warning >&2; printf rest; exit 7",
        false,
    );
    assert_eq!(code(&end), 7);
    let mut said: Vec<_> = web.said().lines().map(String::from).collect();
    said.sort();
    assert_eq!(
        said,
        [
            "kvmlet: warning",
            "stdout: rest",
            "stdout: the configuration"
        ]
    );
    assert_eq!(web.told(), "Runs");
    assert_eq!(web.events(), ["start", "die"]);
    // By a signal.
    assert_eq!(code(&web.run("kill -9 $$", false)), 137);
}

#[test]
fn it_runs_when_it_says_so() {
    let web = Instance::new("always");
    // Who fails before is not started again and again.
    let end = web.run("echo 'error: no kernel' >&2; exit 125", true);
    assert_eq!(code(&end), 125);
    assert_eq!(web.told(), "Fails(\"error: no kernel\")");
    assert!(
        matches!(&end, End::Told(outcome) if outcome.error.as_deref() == Some("error: no kernel"))
    );
    let mut child = web.spawn(
        "while [ ! -e go ]; do sleep 0.01; done; echo r >&$2; sleep 100",
        true,
    );
    web.until(State::Created);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(
        web.book().find("web").unwrap().state().unwrap(),
        State::Created,
        "without a word"
    );
    std::fs::write(web.place.path().join("go"), "").unwrap();
    let view = web.until(State::Running);
    // It is told after it is noted.
    until(|| match &*web.told() {
        "Runs" => Ok(()),
        other => Err(other.to_string()),
    });
    stop(&view, libc::SIGTERM);
    assert!(child.wait().unwrap().success());
    // `always` is not for who was stopped.
    let view = web.until(State::Exited);
    assert_eq!((code(&view.end.unwrap()), view.record.stopped), (143, true));
    assert_eq!(web.events(), ["die", "start", "stop", "die"]);
}

fn stop(view: &crate::View, signal: libc::c_int) {
    let keeper = view.record.keeper.as_ref().unwrap();
    assert!(keeper.lives());
    // SAFETY: a supervisor of this test.
    unsafe { libc::kill(keeper.pid as i32, signal) };
}

#[test]
fn it_is_started_again_as_its_policy_says() {
    let web = Instance::new("on-failure:2");
    let since = Instant::now();
    assert_eq!(code(&web.run("echo x >> runs; exit 3", false)), 3);
    assert!(
        since.elapsed() >= Duration::from_millis(300),
        "after 100 and 200 ms"
    );
    let runs = std::fs::read_to_string(web.place.path().join("runs")).unwrap();
    assert_eq!(runs.lines().count(), 3);
    let view = web.until(State::Exited);
    assert_eq!((view.record.restarts, view.record.run), (2, 1));
    assert_eq!(
        web.events().iter().filter(|event| *event == "die").count(),
        3
    );
    // Between two starts it can be stopped at once.
    let web = Instance::new("always");
    let mut child = web.spawn("exit 1", false);
    let instance = web.book().find("web").unwrap();
    let view = until(|| {
        let view = instance.view(None).unwrap();
        let instead = format!("{view:?}");
        let pauses = view.state == State::Restarting && view.record.restarts >= 7;
        pauses.then_some(view).ok_or(instead)
    });
    let since = Instant::now();
    stop(&view, libc::SIGTERM);
    assert!(child.wait().unwrap().success());
    let took = since.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?} of 6.4 s");
    assert_eq!(code(&web.until(State::Exited).end.unwrap()), 1);
}

#[test]
fn who_is_killed_takes_its_vm_along() {
    let web = Instance::new("always");
    let mut child = web.spawn("echo $$ > pid; exec sleep 100", false);
    let view = web.until(State::Running);
    let path = web.place.path().join("pid");
    let pid = until(|| match std::fs::read_to_string(&path) {
        Ok(pid) if pid.ends_with('\n') => Ok(pid),
        other => Err(other),
    });
    stop(&view, libc::SIGKILL);
    child.wait().unwrap();
    // Once it is free nothing of it runs.
    assert_eq!(web.book().find("web").unwrap().wait().unwrap(), End::Killed);
    let process = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    let ends = || first_thread::is_ending(process);
    let is_gone = || rustix::process::test_kill_process(process).is_err();
    assert!(ends() || is_gone(), "it runs");
    web.until(State::Dead);
}

#[test]
fn a_vm_that_writes_without_end_is_stopped_all_the_same() {
    let web = Instance::new("no");
    let mut child = web.spawn("yes", false);
    let view = web.until(State::Running);
    until(|| web.reader().next().unwrap().ok_or("nothing is written"));
    stop(&view, libc::SIGTERM);
    assert!(child.wait().unwrap().success());
    assert_eq!(code(&web.until(State::Exited).end.unwrap()), 143);
    assert!(web.said().starts_with("stdout: y\n"));
}

#[test]
fn what_fails_before_a_start_is_an_end_that_is_told() {
    let web = Instance::new("always");
    let instance = web.book().find("web").unwrap();
    // No file can be made of that name.
    std::fs::create_dir(instance.directory().path().join("log")).unwrap();
    let end = web.run("exit 0", true);
    assert_eq!(code(&end), 125);
    assert!(web.told().starts_with("Fails("), "{}", web.told());
    let view = web.until(State::Exited);
    let error = view.record.outcome.unwrap().error.unwrap();
    assert!(error.contains(": "), "with its cause: {error}");
}

#[test]
fn what_somebody_has_put_in_the_place_of_its_memory_keeps_it_from_beginning() {
    let web = Instance::new("no");
    let instance = web.book().find("web").unwrap();
    let place = instance.directory().path().join(crate::instance::SUSPENDED);
    std::fs::create_dir(&place).unwrap();
    let error = instance.own().unwrap().begin().unwrap_err().to_string();
    assert!(error.contains("/suspended`"), "{error}");
    // And is no run that has ended.
    assert_eq!(instance.state().unwrap(), State::Created);
    std::fs::remove_dir(&place).unwrap();
    drop(instance.own().unwrap().begin().unwrap());
    assert_eq!(instance.state().unwrap(), State::Dead);
}
