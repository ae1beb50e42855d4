//! VMs of another program, in processes of their own: this one's, for it calls `init` first.

use crate::harness::{Test, deadline, patience::eventually, program};
use crate::ports::on_own_host;
use kvmlet_run::Error;
use kvmlet_run::instance::{Instance, Running, Surroundings};
use kvmlet_spec::{JailMode, MemorySize, Reason, VmConfig, VmConfigBuilder};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("an_embedder_gets_walls_networks_and_an_outcome", outcome),
    ("a_panic_is_told_from_a_service_with_its_code", panic),
    ("an_embedder_has_both_ends_of_the_console", console),
    ("a_vm_in_the_jail_stands_still_and_goes_on", pause),
    ("an_embedder_stops_a_vm_as_it_likes", stop),
    ("a_dropped_instance_leaves_nothing", dropped),
    ("what_keeps_an_instance_from_starting_is_told", failures),
    ("an_instance_may_outlive_its_program", outlives),
    ("an_instance_ends_with_its_program", orphaned),
    ("a_program_outside_needs_ten_lines", outside),
];

fn config(name: &str, cmdline: &str) -> VmConfigBuilder {
    let config = VmConfig::builder().kernel(program(name)).cmdline(cmdline);
    config.memory(64.mib()).jail(JailMode::Required)
}

fn start(config: VmConfigBuilder) -> Running {
    Instance::start(config.build().unwrap(), Surroundings::default()).unwrap()
}

/// The VM's process, while there is one.
fn vm_of(supervisor: u32) -> Option<u32> {
    let path = format!("/proc/{supervisor}/task/{supervisor}/children");
    let children = std::fs::read_to_string(path).ok()?;
    // The next one serves strangers.
    children.split_whitespace().next()?.parse().ok()
}

fn is_there(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn outcome() {
    on_own_host(|| {
        let config = config("power_off", "code=7").net("".parse().unwrap());
        let outcome = start(config).wait().unwrap();
        assert_eq!((outcome.reason, outcome.code), (Reason::Shutdown, Some(7)));
        let stats = outcome.stats.unwrap();
        assert!(stats.vm.vcpus[0].exits() > 0, "{stats:?}");
        assert_eq!(stats.vm.memory.bytes, 64 << 20);
        assert_eq!(stats.vm.interfaces.len(), 1);
        assert!(stats.start.begun_ns >= stats.start.process_ns, "{stats:?}");
    });
}

fn panic() {
    let reason = |name, cmdline| {
        let outcome = start(config(name, cmdline)).wait().unwrap();
        (outcome.reason, outcome.code)
    };
    let service = reason("power_off", "code=134");
    assert_eq!(service, (Reason::Shutdown, Some(134)));
    assert_eq!(reason("panic", ""), (Reason::Panic, None));
    assert_eq!(reason("triple_fault", ""), (Reason::TripleFault, None));
    assert_eq!(reason("reset", ""), (Reason::Reset, None));
}

/// With the guest's console at pipes of this program.
fn with_console(config: VmConfigBuilder) -> (Running, std::io::PipeWriter, impl BufRead) {
    let (their_input, input) = std::io::pipe().unwrap();
    let (output, their_output) = std::io::pipe().unwrap();
    let mut surroundings = Surroundings::default();
    surroundings.input = Some(OwnedFd::from(their_input));
    surroundings.output = Some(OwnedFd::from(their_output));
    let running = Instance::start(config.build().unwrap(), surroundings).unwrap();
    (running, input, BufReader::new(output))
}

fn console() {
    let (mut running, mut input, mut output) = with_console(config("serial_echo", ""));
    let mut lines = String::new();
    output.read_line(&mut lines).unwrap();
    input.write_all(b"to and fro\nq").unwrap();
    output.read_line(&mut lines).unwrap();
    assert_eq!(lines, "ready\nTO AND FRO\n");
    let outcome = running.wait().unwrap();
    assert_eq!((outcome.reason, outcome.code), (Reason::Shutdown, Some(42)));
}

fn pause() {
    let (mut running, _input, mut output) = with_console(config("spin", "period=100000"));
    let mut read = |count: usize| output.read_exact(&mut vec![0; count]).unwrap();
    read(10);
    running.pause().unwrap();
    let written = |running: &mut Running| running.stats().unwrap().vm.vcpus[0].port_writes;
    let before = written(&mut running);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(written(&mut running), before);
    let Err(Error::Refused(failure)) = running.pause() else {
        panic!("it stands still already");
    };
    assert!(failure.message.contains("paused"), "{failure}");
    running.resume().unwrap();
    read(10);
    eventually("it goes on", || written(&mut running) > before);
    // One that stands still can be ended, too.
    running.pause().unwrap();
    let outcome = running.stop(Duration::ZERO).unwrap();
    assert_eq!(outcome.reason, Reason::Stopped);
    assert!(matches!(running.resume(), Err(Error::Over)));
    assert_eq!(running.wait().unwrap().reason, Reason::Stopped);
}

fn stop() {
    // A guest that listens ends its service.
    let (mut running, _input, mut output) = with_console(config("power_button", "code=9"));
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let outcome = running.stop(deadline()).unwrap();
    assert_eq!((outcome.reason, outcome.code), (Reason::Shutdown, Some(9)));
    // One that hears and does nothing has its time.
    let (mut running, _input, mut output) = with_console(config("power_button", "presses=0"));
    output.read_line(&mut line).unwrap();
    let since = Instant::now();
    let outcome = running.stop(Duration::from_millis(300)).unwrap();
    assert_eq!(outcome.reason, Reason::Stopped);
    assert!(since.elapsed() >= Duration::from_millis(300));
    // One that does not listen has none.
    let outcome = start(config("spin", "")).stop(Duration::from_secs(60));
    assert_eq!(outcome.unwrap().reason, Reason::Stopped);
}

fn dropped() {
    on_own_host(|| {
        let running = start(config("spin", "period=0").net("".parse().unwrap()));
        let supervisor = running.pid();
        let vm = vm_of(supervisor).unwrap();
        let links = || text(Command::new("ip").args(["-o", "link"]));
        assert!(links().contains("kvmlet"), "{}", links());
        drop(running);
        assert!(!is_there(supervisor) && !is_there(vm));
        assert!(!links().contains("kvmlet"), "{}", links());
    });
}

fn text(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

fn failures() {
    let start = |config: VmConfigBuilder| {
        let config = config.build().unwrap();
        Instance::start(config, Surroundings::default()).unwrap_err()
    };
    let missing = start(config("spin", "").kernel("/nowhere/vmlinux"));
    let Error::Start(failure) = &missing else {
        panic!("{missing:?}");
    };
    assert_eq!(
        failure.to_string(),
        "cannot open guest kernel `/nowhere/vmlinux`"
    );
    let cause = failure.cause.as_ref().unwrap().to_string();
    assert!(cause.starts_with("No such file or directory"), "{cause}");
    assert!(failure.help.is_some());
    // What the supervisor itself finds.
    let unwritable = start(config("spin", "").stats("/nowhere/stats.json"));
    let expected = "cannot write to `/nowhere/stats.json`";
    assert_eq!(unwritable.to_string(), expected);
}

fn outlives() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("outcome.json");
    let mut surroundings = Surroundings::default();
    surroundings.outlives = true;
    surroundings.outcome = Some(path.clone());
    let config = config("spin", "period=0").build().unwrap();
    let supervisor = Instance::start(config, surroundings).unwrap().leave();
    std::thread::sleep(Duration::from_millis(200));
    let vm = vm_of(supervisor).unwrap();
    assert!(is_there(supervisor) && is_there(vm) && !path.exists());
    crate::cli::kill(supervisor as i32, libc::SIGTERM);
    eventually("it has ended", || !is_there(supervisor));
    assert!(!is_there(vm));
    assert_eq!(reason_in(&path), Reason::Signal);
}

fn reason_in(path: &Path) -> Reason {
    let outcome: kvmlet_spec::Outcome = serde_json::from_reader(File::open(path).unwrap()).unwrap();
    outcome.reason
}

/// Whoever goes away without a word has its VM end.
fn orphaned() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("outcome.json");
    let mut surroundings = Surroundings::default();
    surroundings.outcome = Some(path.clone());
    let config = config("spin", "period=0").build().unwrap();
    let supervisor = Instance::start(config, surroundings).unwrap().leave();
    eventually("it has ended", || !is_there(supervisor));
    assert_eq!(reason_in(&path), Reason::Stopped);
}

/// A program that is no part of this workspace, and knows `kvmlet` by its path.
fn outside() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let manifest = format!(
        "[package]\nname = \"outside\"\nedition = \"2024\"\n\n[dependencies]\nkvmlet = {{ path = {:?} }}\n\n[workspace]\n\n\
         [profile.dev]\npanic = \"abort\"\ndebug = false\n",
        root.join("src/kvmlet")
    );
    std::fs::write(at("Cargo.toml"), manifest).unwrap();
    std::fs::copy(root.join("Cargo.lock"), at("Cargo.lock")).unwrap();
    std::fs::create_dir(at("src")).unwrap();
    let source = root.join("tests/outside/program.rs");
    std::fs::copy(source, at("src/main.rs")).unwrap();
    let target = root.join("target/outside");
    let cargo = |verb: &str| {
        let mut command = Command::new(env!("CARGO"));
        command
            .current_dir(directory.path())
            .env("CARGO_TARGET_DIR", &target);
        command.args([verb, "--offline"]);
        command
    };
    let tree = text(cargo("tree").args(["--edges", "normal", "--prefix", "none", "--no-dedupe"]));
    let packages: std::collections::BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(packages.contains("kvmlet-run"), "{tree}");
    assert!(packages.len() <= 45, "{}: {packages:?}", packages.len());
    let built = cargo("build").output().unwrap();
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{errors}");
    let found = || -> Option<std::path::PathBuf> {
        let triple = std::fs::read_dir(&target).ok()?.flatten();
        let mut all = triple.map(|entry| entry.path().join("debug/outside"));
        all.find(|path| path.exists())
            .or_else(|| Some(target.join("debug/outside")))
    };
    let program_outside = found().unwrap();
    let output = move || {
        let mut command = Command::new(&program_outside);
        let output = command.arg(program("power_off")).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let said = std::thread::spawn(move || {
        crate::ports::enter_own_host();
        output()
    });
    let said = said.join().unwrap();
    assert!(said.contains("Shutdown, code Some(7)"), "{said}");
}
