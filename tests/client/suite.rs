//! Each call of `kvmlet::control::Client`, asked of a VM of `kvmlet boot` with a bare-metal guest.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

use kvmlet::config::{Rate, RateLimit, Reason};
use kvmlet::control::{Change, Client, ConnectionError, Error, Limited, Order, Report, State};
use kvmlet::{Memory, MemorySize};
use kvmlet_harness::{deadline, kvm, kvmlet, program};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A VM that ends with this.
struct Vm {
    process: Child,
    place: tempfile::TempDir,
}

impl Vm {
    /// One that runs; none where there can be none.
    fn boot(guest: &str) -> Option<Self> {
        if let Err(why) = kvm() {
            println!("SKIPPED: {why}");
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("disk"), [7; 4096]).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" boot \"$@\" 3<&0 </dev/null"]);
        command
            .arg(kvmlet())
            .args(["--control-fd", "3", "-m", "64M", "--balloon"]);
        command.arg("--kernel").arg(program(guest));
        command.arg("--disk").arg(place.path().join("disk"));
        let vm = Self::start(command, place, "control");
        let since = Instant::now();
        let mut watch = vm.client().watch().unwrap();
        while watch.next(Some(since + deadline())).unwrap().unwrap() != Change::To(State::Running) {
        }
        Some(vm)
    }

    fn start(mut command: Command, place: tempfile::TempDir, name: &str) -> Self {
        let listener = UnixListener::bind(place.path().join(name)).unwrap();
        command.stdin(Stdio::from(OwnedFd::from(listener)));
        let process = command.stdout(Stdio::null()).spawn().unwrap();
        Self { process, place }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn client(&self) -> Client {
        Client::to(&self.file("control"))
            .unwrap()
            .patience(deadline())
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn refused(done: Result<impl std::fmt::Debug, Error>) -> String {
    match done.unwrap_err() {
        Error::Vm(ConnectionError::Refused(why)) => why.message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_vm_stands_still_goes_on_and_tells_that() {
    let Some(mut vm) = Vm::boot("spin") else {
        return;
    };
    let mut watch = vm.client().watch().unwrap();
    let mut next = || watch.next(Some(Instant::now() + deadline())).unwrap();
    assert_eq!(next(), Some(Change::To(State::Running)));
    let mut client = vm.client();
    client.pause().unwrap();
    assert_eq!(next(), Some(Change::To(State::Paused)));
    assert!(refused(client.pause()).contains("cannot pause"));
    client.resume().unwrap();
    assert_eq!(next(), Some(Change::To(State::Running)));
    assert!(refused(client.resume()).contains("cannot resume"));
    let outcome = client.stop(Duration::ZERO).unwrap();
    assert_eq!(outcome.reason, Reason::Stopped);
    while next().is_some_and(|change| change != Change::Ended(Box::new(outcome.clone()))) {}
    assert_eq!(next(), None);
    vm.process.wait().unwrap();
    assert!(matches!(
        Client::to(&vm.file("control")),
        Err(Error::Unattached { .. })
    ));
}

#[test]
fn what_a_vm_has_and_does_is_told_and_changed() {
    let Some(vm) = Vm::boot("spin") else { return };
    let mut client = vm.client();
    assert_eq!(client.stats().unwrap().vm.vcpus.len(), 1);
    assert!(client.metrics().unwrap().ends_with("# EOF\n"));
    assert_eq!(client.published().unwrap(), [""; 0]);
    assert_eq!(client.interfaces().unwrap(), [""; 0]);
    let told = client.ask(Order::Published).unwrap();
    assert_eq!(told, [Report::Published(Vec::new())]);
    let mut limit = RateLimit::NONE;
    limit.operations = Some(Rate::per_second(9).unwrap());
    client.limit(Limited::Disk(0), limit).unwrap();
    refused(client.limit(Limited::Receive(0), limit));
    client.balloon(1.mib()).unwrap();
    refused(client.balloon(64.mib()));
    assert!(matches!(
        client.balloon(Memory::from_bytes(4096)),
        Err(Error::Size(_))
    ));
    let disk = std::fs::File::options()
        .write(true)
        .open(vm.file("disk"))
        .unwrap();
    disk.set_len(8192).unwrap();
    client.resize(0).unwrap();
    refused(client.resize(1));
    // Nobody in this guest listens.
    refused(client.press_power_button());
    refused(client.signal(1));
    client.signal(9).unwrap();
}

fn resumed(vm: &Vm, file: &Path) {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" restore \"$@\" 3<&0 </dev/null"]);
    command.arg(kvmlet()).args(["--control-fd", "3", "--disk"]);
    command.arg(vm.file("disk")).arg(file);
    let other = Vm::start(command, tempfile::tempdir().unwrap(), "control");
    let mut watch = other.client().watch().unwrap();
    let until = Instant::now() + deadline();
    while watch.next(Some(until)).unwrap().unwrap() != Change::To(State::Running) {}
    let outcome = other.client().stop(Duration::ZERO).unwrap();
    assert_eq!(outcome.reason, Reason::Stopped);
}

#[test]
fn a_vm_is_saved_and_suspended_and_goes_on() {
    let Some(mut vm) = Vm::boot("spin") else {
        return;
    };
    let [saved, suspended] = ["saved", "suspended"].map(|name| vm.file(name));
    assert!(vm.client().save(&saved).unwrap() < deadline());
    // It runs on.
    vm.client().pause().unwrap();
    vm.client().resume().unwrap();
    let nowhere = vm.client().save(Path::new("/nowhere/at/all"));
    assert!(matches!(nowhere, Err(Error::Unwritten { .. })));
    let nowhere = vm.client().suspend(Path::new("/nowhere/at/all"));
    assert!(matches!(nowhere, Err(Error::Unwritten { .. })));
    vm.client().pause().unwrap();
    vm.client().resume().unwrap();
    let outcome = vm.client().suspend(&suspended).unwrap();
    assert_eq!(outcome.reason, Reason::Stopped);
    vm.process.wait().unwrap();
    resumed(&vm, &saved);
    resumed(&vm, &suspended);
}
