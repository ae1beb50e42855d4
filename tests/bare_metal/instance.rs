//! VMs of another program, in processes of their own: this one's, for it calls `init` first.

use crate::harness::{Test, deadline, patience::eventually, program};
use crate::ports::on_own_host;
use kvmlet_run::Error;
use kvmlet_run::instance::{Instance, Running, Surroundings};
use kvmlet_spec::{JailMode, MemorySize, Reason, VmConfig, VmConfigBuilder};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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
    ("an_instance_is_found_again_by_its_socket", found),
    ("who_finds_an_instance_holds_it", held),
    ("examples_do_what_they_say", examples),
    ("an_agent_that_is_killed_misses_nothing", killed_agent),
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
        // Nobody waits for the end of a network.
        eventually("its network has gone", || !links().contains("kvmlet"));
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

/// A VM that was left alone, its socket, and the file of its outcome.
fn left_alone(
    directory: &Path,
    config: VmConfigBuilder,
    output: Option<OwnedFd>,
) -> (u32, PathBuf, PathBuf) {
    let (socket, path) = (directory.join("sock"), directory.join("outcome"));
    let mut surroundings = Surroundings::default();
    surroundings.outlives = true;
    surroundings.output = output;
    surroundings.outcome = Some(path.clone());
    surroundings.control = Some(socket.clone());
    let running = Instance::start(config.build().unwrap(), surroundings).unwrap();
    (running.leave(), socket, path)
}

fn found() {
    let directory = tempfile::tempdir().unwrap();
    let spin = config("power_button", "code=9");
    let (said, output) = std::io::pipe().unwrap();
    let (supervisor, socket, path) = left_alone(directory.path(), spin, Some(output.into()));
    // A button that nobody listens to yet is a power cut.
    let mut said = BufReader::new(said);
    let mut text = String::new();
    while !text.contains("ready") && said.read_line(&mut text).unwrap() > 0 {}
    let mut running = Instance::attach(&socket).unwrap();
    assert_eq!(running.pid(), supervisor);
    assert!(running.try_wait().unwrap().is_none());
    running.pause().unwrap();
    assert!(matches!(running.pause(), Err(Error::Refused(_))));
    assert_eq!(running.stats().unwrap().vm.memory.bytes, 64 << 20);
    running.resume().unwrap();
    // Once more, as whoever is killed would.
    assert_eq!(running.leave(), supervisor);
    let mut running = Instance::attach(&socket).unwrap();
    let outcome = running.stop(deadline()).unwrap();
    assert_eq!((outcome.reason, outcome.code), (Reason::Shutdown, Some(9)));
    assert_eq!(running.pid(), 0);
    assert!(matches!(running.resume(), Err(Error::Over)));
    assert!(!is_there(supervisor) && !socket.exists());
    assert_eq!(reason_in(&path), Reason::Shutdown);
    let error = Instance::attach(&socket).unwrap_err();
    assert!(matches!(error, Error::Unattached { .. }), "{error}");
    // What is no VM's is told, and not waited for.
    // Whether it hangs up before or after it is asked for something, it is not ended (it is this process).
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    for _ in 0..50 {
        let error = Instance::attach(&socket).unwrap_err();
        assert!(matches!(error, Error::Gone | Error::Lost(_)), "{error}");
    }
}

fn held() {
    let directory = tempfile::tempdir().unwrap();
    let spin = || config("spin", "period=0");
    let (supervisor, socket, _) = left_alone(directory.path(), spin(), None);
    let vm = vm_of(supervisor).unwrap();
    let mut other = Instance::attach(&socket).unwrap();
    drop(Instance::attach(&socket).unwrap());
    assert!(!is_there(supervisor) && !is_there(vm));
    assert_eq!(other.wait().unwrap().reason, Reason::Stopped);
    // A supervisor that is killed has a VM no more, whoever has attached to it, and its socket is in nobody's way.
    let (supervisor, socket, _) = left_alone(directory.path(), spin(), None);
    let mut running = Instance::attach(&socket).unwrap();
    let vm = vm_of(supervisor).unwrap();
    crate::cli::kill(supervisor as i32, libc::SIGKILL);
    assert!(matches!(running.wait(), Err(Error::Gone)));
    eventually("its VM has ended", || !is_there(vm));
    assert!(socket.exists());
    let (_, socket, _) = left_alone(directory.path(), spin(), None);
    // As many as are told the end.
    let all: Vec<Running> = (0..4).map(|_| Instance::attach(&socket).unwrap()).collect();
    let Err(Error::Refused(failure)) = Instance::attach(&socket) else {
        panic!("one too many");
    };
    assert!(failure.message.contains("watched"), "{failure}");
    drop(all);
}

/// Builds the examples of the face, and returns where they are. They are up to date if all tests were built.
fn built_examples() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "--offline", "--workspace", "--exclude"]);
    let built = cargo.args(["kvmlet-guests", "--examples"]).output();
    let built = built.unwrap();
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{errors}");
    let programs = Path::new(env!("CARGO_BIN_EXE_kvmlet")).parent();
    programs.unwrap().join("examples")
}

/// What a program says whose standard input ends when its guest listens to the power button.
fn ended_when_ready(mut program: Command) -> String {
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("ready") && said.read_line(&mut text).unwrap() > 0 {}
    drop(child.stdin.take());
    said.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    text
}

fn examples() {
    let built_examples = built_examples();
    let examples = built_examples.clone();
    let mut walled = Command::new(examples.join("walls"));
    walled.arg(program("power_button"));
    let run = move |name: &str, words: &[&std::ffi::OsStr]| {
        // What is no example is a program of this host.
        let example = Some(examples.join(name)).filter(|example| example.exists());
        let mut command = Command::new(example.unwrap_or(name.into()));
        let output = command.args(words).stdin(Stdio::null()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{name}: {said}");
        said
    };
    let smallest = run("smallest", &[program("power_off").as_ref()]);
    assert!(
        smallest.contains("powered off with exit code 0"),
        "{smallest}"
    );
    let directory = tempfile::tempdir().unwrap();
    let tenants = directory.path().join("tenants");
    let program_of_agent = built_examples.join("agent");
    let agents = move || {
        crate::ports::enter_own_host();
        let walls = ended_when_ready(walled);
        assert!(walls.contains("Shutdown, code Some(0)"), "{walls}");
        let kernel = program("power_button");
        let agent = [tenants.as_os_str(), kernel.as_ref(), "code=3".as_ref()];
        let count = |text: &str, what: &str| text.matches(what).count();
        // Who may make no network says so once, and does without.
        let bare = [
            "--bounding-set=-net_admin".as_ref(),
            program_of_agent.as_os_str(),
        ];
        let bare = run("setpriv", &[&bare[..], &agent].concat());
        assert_eq!(count(&bare, ": started, process"), 10, "{bare}");
        let why = "tenants have no networks: cannot give the VM a network interface: ";
        assert_eq!((count(&bare, why), count(&bare, "eth0")), (1, 0), "{bare}");
        run("agent", &agent[..1]);
        let first = run("agent", &agent);
        assert_eq!(count(&first, ": started, process"), 10, "{first}");
        for place in 0..10 {
            let address = format!("tenant{place}: eth0,10.108.0.{}/30,", 4 * place + 2);
            assert_eq!(count(&first, &address), 1, "{address} in {first}");
        }
        let again = run("agent", &agent);
        assert_eq!(count(&again, ": found, process"), 10, "{again}");
        let ended = run("agent", &agent[..1]);
        assert_eq!(count(&ended, "Shutdown, code Some(3)"), 10, "{ended}");
        assert_eq!(count(&ended, ": had ended: {"), 10, "{ended}");
        let anew = run("agent", &agent);
        assert_eq!(count(&anew, ": started, process"), 10, "{anew}");
        run("agent", &agent[..1]);
    };
    std::thread::spawn(agents).join().unwrap();
}

/// A hundred lives of an agent, each ended by force: some when all is quiet, others in the middle of something. Meanwhile
/// VMs end and are followed by others.
fn killed_agent() {
    let agent = built_examples().join("agent").canonicalize().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let tenants = directory.path().join("tenants");
    let lives = move || {
        crate::ports::enter_own_host();
        let begin = |words: &[&std::ffi::OsStr]| {
            let mut command = Command::new(&agent);
            command.arg(&tenants).args(words);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            command.spawn().unwrap()
        };
        let kernel = program("power_button");
        let words = [kernel.as_ref(), "code=3".as_ref()];
        let holds = |child: &mut Child| {
            let mut said = BufReader::new(child.stdout.take().unwrap());
            let mut text = String::new();
            while !text.contains("holds ") && said.read_line(&mut text).unwrap() > 0 {}
            assert!(text.contains("holds 10 VMs"), "{text}");
            // It is to say more without being held up, and to somebody.
            std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        };
        let mut known = BTreeMap::new();
        let mut ended = 0;
        for life in 0..100u32 {
            let mut child = begin(&words);
            match life % 3 {
                0 => {
                    holds(&mut child);
                    addressed(&tenants, &mut known);
                }
                _ => std::thread::sleep(Duration::from_millis(u64::from(life * 37 % 101))),
            }
            ended += u32::from(cut(&tenants, life % 10));
            std::thread::sleep(Duration::from_millis(u64::from(life * 53 % 23)));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // Not all had a VM at that moment.
        assert!(ended >= 30, "{ended}");
        let mut last = begin(&words);
        holds(&mut last);
        addressed(&tenants, &mut known);
        drop(last.stdin.take());
        assert!(last.wait().unwrap().success());
        let vms = told(&tenants.join("events"));
        assert_eq!(vms.len() as u32, 10 + ended, "{vms:?}");
        let running: Vec<_> = vms.iter().filter(|(_, told)| **told == 1).collect();
        assert_eq!(running.len(), 10, "{vms:?}");
        for ((tenant, vm), _) in &running {
            let socket = tenants.join(tenant).join(format!("{vm}.sock"));
            drop(Instance::attach(&socket).unwrap());
        }
        let output = begin(&[]).wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let vms = told(&tenants.join("events"));
        assert!(vms.values().all(|told| *told == 2), "{vms:?}");
        // Nobody runs who is known to no one.
        eventually("all have ended", || {
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            let programs =
                processes.filter_map(|it| std::fs::read_link(it.path().join("exe")).ok());
            programs.filter(|program| *program == agent).count() == 0
        });
    };
    std::thread::spawn(lives).join().unwrap();
}

/// Looks whether the tenants' VMs have the addresses that they are known to have, each its own.
fn addressed(tenants: &Path, known: &mut BTreeMap<String, String>) {
    for number in 0..10 {
        let sockets = sockets_of(tenants, number);
        let [socket] = &sockets[..] else {
            panic!("{sockets:?}");
        };
        let connection = kvmlet_control::Connection::to(socket);
        let order = kvmlet_control::Order::Interfaces;
        let told = connection.unwrap().ask(order, deadline()).unwrap();
        let has = told.into_iter().find_map(|report| match report {
            kvmlet_control::Report::Interfaces(all) => Some(all.join(" ")),
            _ => None,
        });
        let has = has.filter(|has| has.contains("/30,")).expect("an address");
        let tenant = known
            .entry(has.clone())
            .or_insert(format!("tenant{number}"));
        assert_eq!(*tenant, format!("tenant{number}"), "{has}");
    }
    assert_eq!(known.len(), 10, "{known:?}");
}

fn sockets_of(tenants: &Path, number: u32) -> Vec<PathBuf> {
    let directory = tenants.join(format!("tenant{number}"));
    let found = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sockets = found.map(|it| it.path());
    let is_socket = |it: &PathBuf| it.extension().is_some_and(|it| it == "sock");
    sockets.filter(is_socket).collect()
}

/// Cuts the power of a tenant's VM, if it has one.
fn cut(tenants: &Path, number: u32) -> bool {
    sockets_of(tenants, number).into_iter().any(|socket| {
        let Ok(mut connection) = kvmlet_control::Connection::to(&socket) else {
            return false;
        };
        let patience_ms = Some(0);
        // It may have ended before it has answered.
        let _ = connection.ask(kvmlet_control::Order::Stop { patience_ms }, deadline());
        let outcome = socket.with_extension("outcome");
        eventually("it has ended", || outcome.exists());
        true
    })
}

/// How much an agent has told of each VM that has started: its start, and its end, each once.
fn told(events: &Path) -> BTreeMap<(String, u64), usize> {
    let text = std::fs::read_to_string(events).unwrap();
    let mut vms = BTreeMap::new();
    for line in text.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect(line);
        let vm = (
            event["tenant"].as_str().unwrap().to_owned(),
            event["vm"].as_u64().unwrap(),
        );
        let what = &event["what"];
        let known = vms.entry(vm).or_insert(0);
        match (*known, what == "started", what["ended"].is_object()) {
            (0, true, _) | (1, _, true) => *known += 1,
            _ => assert!(*known == 0 && what == "wanted", "{line} in {text}"),
        }
    }
    vms
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
            .env("CARGO_TARGET_DIR", &target)
            // What a user's cargo builds for, whatever these tests are built for.
            .env_remove("CARGO_BUILD_TARGET");
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
    let found = || -> Option<PathBuf> {
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
