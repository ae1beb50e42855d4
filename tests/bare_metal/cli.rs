//! `kvmlet boot` with bare-metal guests: exit codes, signals, input from pipes and terminals.

use crate::harness::{Test, deadline, has_ended, patience::eventually, program};
use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

pub const TESTS: &[Test] = &[
    ("exit_codes_come_through", exit_codes),
    ("flags_reach_the_guest", flags),
    (
        "a_configuration_file_is_booted_and_flags_override_it",
        configuration,
    ),
    ("a_pipe_feeds_the_guest", pipe),
    ("no_standard_input_is_no_problem", no_input),
    ("signals_end_the_vm", signals),
    ("signals_that_were_ignored_stay_so", ignored_signals),
    ("a_killed_vm_is_told_of", killed_vm),
    ("a_killed_supervisor_takes_its_vm_along", killed_supervisor),
    ("a_failure_names_the_instruction", failure),
    ("huge_pages_that_are_not_there_are_refused", no_huge_pages),
    ("the_boot_timer_is_reported", boot_timer),
    (
        "statistics_are_written_at_the_end_and_on_demand",
        statistics,
    ),
];

pub fn kvmlet(program_name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    command
        .args(["boot", "--kernel"])
        .arg(program(program_name))
        .stdin(Stdio::null());
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn exit_codes() {
    let code =
        |name: &str, cmdline: &str| run(kvmlet(name).args(["--cmdline", cmdline])).status.code();
    assert_eq!(code("power_off", "code=0"), Some(0));
    assert_eq!(code("power_off", "code=42"), Some(42));
    assert_eq!(code("reset", ""), Some(129));
    assert_eq!(code("panic", ""), Some(134));
    assert_eq!(code("triple_fault", ""), Some(139));
}

fn flags() {
    let output = run(kvmlet("pvh_entry")
        .args([
            "--cmdline",
            "first",
            "--memory",
            "32M",
            "-e",
            "A=b c",
            "-w",
            "/tmp",
            "--hostname",
            "box",
        ])
        .args(["--", "sh", "-c", "exit 1"]));
    let console = text(&output.stdout);
    for part in [
        "cmdline=first",
        "kvmlet.env=A=b%20c",
        "kvmlet.workdir=/tmp",
        "kvmlet.hostname=box",
    ] {
        assert!(console.contains(part), "no {part:?} in {console}");
    }
    assert!(
        console.contains("kvmlet.arg=sh kvmlet.arg=-c kvmlet.arg=exit%201"),
        "{console}"
    );
    assert!(
        console.contains(&format!("ram={}", (32 << 20) - (0x10_0000 - 0x9_fc00))),
        "{console}"
    );
}

fn configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vm.json");
    let json = serde_json::json!({
        "kernel": program("pvh_entry"), "memory": "48M", "cmdline": "from=file", "command": ["file"],
    });
    std::fs::write(&path, json.to_string()).unwrap();
    let output = run(Command::new(env!("CARGO_BIN_EXE_kvmlet"))
        .args(["boot", "--config"])
        .arg(&path)
        .args(["--cmdline", "from=flag"]));
    let console = text(&output.stdout);
    assert!(
        console.contains("cmdline=from=flag") && console.contains("kvmlet.arg=file"),
        "{console}"
    );
    assert!(
        console.contains(&format!("ram={}", (48 << 20) - (0x10_0000 - 0x9_fc00))),
        "{console}"
    );
}

fn pipe() {
    let mut child = kvmlet("serial_echo")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = "more than any buffer holds, ".repeat(300) + "q";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(42));
    assert!(text(&output.stdout).contains(&input.trim_end_matches('q').to_uppercase()));
}

fn no_input() {
    let closed = "exec <&-; exec \"$@\"";
    let output = Command::new("sh")
        .args([
            "-c",
            closed,
            "sh",
            env!("CARGO_BIN_EXE_kvmlet"),
            "boot",
            "--kernel",
        ])
        .arg(program("ready"))
        .output()
        .unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(0), &b"ready\n"[..])
    );
}

/// A child that does not outlive a test that fails: it would hold the test run's output open.
pub struct Running(Child);

impl Running {
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// The guest goes on: it writes at least two more bytes.
    pub fn expect_two_bytes(&mut self) {
        let console = self.0.stdout.as_mut().unwrap();
        console.read_exact(&mut [0; 2]).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl std::ops::Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl std::ops::DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

/// A guest that has begun to run and will not end.
fn spinning() -> Running {
    let mut child = Running::spawn(kvmlet("spin").stdout(Stdio::piped()));
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    child
}

fn signals() {
    for (signal, code) in [
        (libc::SIGTERM, 143),
        (libc::SIGINT, 130),
        (libc::SIGHUP, 129),
    ] {
        let mut child = spinning();
        // SAFETY: the child has not been waited for, so the number is its own.
        unsafe { libc::kill(child.id() as i32, signal) };
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

/// The process that runs the VM.
pub fn vm_process(supervisor: &Child) -> i32 {
    vm_process_if_any(supervisor).unwrap()
}

/// The process that runs the VM, while there is one.
pub fn vm_process_if_any(supervisor: &Child) -> Option<i32> {
    let pid = supervisor.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    // The first; another one may serve strangers.
    children.ok()?.split_whitespace().next()?.parse().ok()
}

/// Sends a signal to a supervisor or a VM's process; one that has just ended by itself gets none.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: both processes are the test's own; the supervisor has not been waited for.
    let result = unsafe { libc::kill(pid, signal) };
    let error = std::io::Error::last_os_error().raw_os_error();
    assert!(result == 0 || error == Some(libc::ESRCH), "{error:?}");
}

fn killed_vm() {
    let mut child = Running::spawn(kvmlet("spin").stdout(Stdio::piped()).stderr(Stdio::piped()));
    child.expect_two_bytes();
    kill(vm_process(&child), libc::SIGKILL);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    let mut message = String::new();
    let stderr = child.stderr.as_mut().unwrap();
    stderr.read_to_string(&mut message).unwrap();
    assert!(message.contains("killed by signal 9"), "{message}");
}

fn killed_supervisor() {
    let mut child = spinning();
    let vm = vm_process(&child);
    kill(child.id() as i32, libc::SIGKILL);
    child.wait().unwrap();
    // The pipe ends when the last process that could write to it has ended.
    let mut rest = Vec::new();
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_to_end(&mut rest)
        .unwrap();
    eventually("the VM's process has ended", || has_ended(vm as u32));
}

fn ignored_signals() {
    let mut child = Running::spawn(
        Command::new("nohup")
            .args([env!("CARGO_BIN_EXE_kvmlet"), "boot", "--kernel"])
            .arg(program("spin"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped()),
    );
    child.expect_two_bytes();
    // SAFETY: the child has not been waited for, so the number is its own.
    let signal = |child: &Child, signal| unsafe { libc::kill(child.id() as i32, signal) };
    signal(&child, libc::SIGHUP);
    child.expect_two_bytes();
    signal(&child, libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

fn failure() {
    if kvmlet_sys::kvm::Execution::detect().unwrap() == kvmlet_sys::kvm::Execution::Hardware {
        return; // there, KVM executes the instruction
    }
    let output = run(&mut kvmlet("bad_instruction"));
    assert_eq!(output.status.code(), Some(125));
    let message = text(&output.stderr);
    for part in [
        "error: the VM cannot go on",
        "caused by: vCPU 0",
        "bytes 9b",
        "(`fwait`)",
        "CPL 0",
        "help:",
    ] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
}

fn no_huge_pages() {
    let free = kvmlet_sys::facts::ReservedPages::read().free;
    // One page of 2 MiB more than there are.
    let memory = ((free + 1) * 2).max(16);
    let output = run(kvmlet("spin").args([
        "--huge-pages",
        "reserved",
        "--memory",
        &format!("{memory}M"),
    ]));
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{message}");
    assert!(
        message.contains("reserved huge pages") && message.contains("nr_hugepages"),
        "{message}"
    );
}

fn boot_timer() {
    let message = text(&run(&mut kvmlet("boot_timer")).stderr);
    assert!(
        message.starts_with("kvmlet: the guest was ready "),
        "{message}"
    );
}

fn statistics() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stats.json");
    let read =
        || serde_json::from_slice::<serde_json::Value>(&std::fs::read(&path).unwrap()).unwrap();
    let mut child = Running::spawn(
        kvmlet("spin")
            .arg("--stats")
            .arg(&path)
            .stdout(Stdio::piped()),
    );
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let pid = child.id() as i32;
    // SAFETY: the child has not been waited for, so the number is its own.
    let signal = |signal| unsafe { libc::kill(pid, signal) };
    signal(libc::SIGUSR1);
    let deadline = Instant::now() + deadline();
    while !path.exists() {
        assert!(Instant::now() < deadline, "no statistics");
        std::thread::yield_now();
    }
    let first = read()["vcpus"][0]["port_writes"].as_u64().unwrap();
    let start = read()["start"].take();
    let phases = start["phases"].as_array().unwrap();
    let times = phases.iter().map(|phase| phase["done_ns"].as_u64());
    let times: Vec<_> = [start["process_ns"].as_u64(), start["begun_ns"].as_u64()]
        .into_iter()
        .chain(times)
        .collect();
    assert!(times.is_sorted() && times.len() > 8, "{start:#}");
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 2])
        .unwrap();
    signal(libc::SIGTERM);
    child.wait().unwrap();
    assert!(read()["vcpus"][0]["port_writes"].as_u64().unwrap() > first);
}
