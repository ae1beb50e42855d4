//! Pause, resume, stop, and wrong moves.

use crate::harness::{Guest, Output, Test, program};
use kvmlet_spec::{Disk, MemorySize, VmConfig};
use kvmlet_vmm::thread::ThreadKind;
use kvmlet_vmm::vm::{Phase, Starting, State};
use kvmlet_vmm::{Error, ExitReason, Vm};
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;

pub const TESTS: &[Test] = &[
    ("an_endless_loop_is_stopped", endless_loop),
    ("pause_stands_still_and_resume_goes_on", pause_and_resume),
    ("wrong_moves_are_errors", wrong_moves),
    ("dropping_a_handle_stops_the_vm", dropping),
    ("many_threads_wait_for_one_end", many_waiters),
    ("a_start_is_traced", traced),
    ("a_vm_that_never_started_leaves_nothing", never_started),
    ("stopping_at_once", stopping_at_once),
    ("threads_begin_with_what_they_must_do", threads_begin),
    ("a_thread_that_cannot_begin_ends_the_start", thread_refused),
];

fn endless_loop() {
    let guest = Guest::boot("spin");
    guest.output.expect(".");
    guest.vm.stop();
    assert_eq!(guest.vm.wait().unwrap(), ExitReason::Stopped);
    assert_eq!(guest.vm.state(), State::Stopped);
}

fn pause_and_resume() {
    let guest = Guest::boot_with("spin", |c| c.vcpus(2));
    guest.output.expect("..");
    for _ in 0..10 {
        guest.vm.pause().unwrap();
        assert_eq!(guest.vm.state(), State::Paused);
        // No vCPU is inside the guest, so nothing can be written, however long one looks.
        let before = guest.output.text().len();
        for _ in 0..1000 {
            thread::yield_now();
        }
        assert_eq!(guest.output.text().len(), before);
        guest.vm.resume().unwrap();
        guest.output.expect(&".".repeat(before + 1));
    }
}

fn wrong_moves() {
    let guest = Guest::boot("spin");
    let message = |result: Result<(), Error>| result.unwrap_err().to_string();
    assert_eq!(
        message(guest.vm.resume()),
        "cannot resume a VM that is running"
    );
    guest.vm.pause().unwrap();
    assert_eq!(
        message(guest.vm.pause()),
        "cannot pause a VM that is paused"
    );
    guest.vm.stop();
    assert_eq!(
        message(guest.vm.pause()),
        "cannot pause a VM that is stopped"
    );
    assert_eq!(
        message(guest.vm.resume()),
        "cannot resume a VM that is stopped"
    );
    guest.vm.stop();
}

fn dropping() {
    let guest = Guest::boot_with("spin", |c| c.vcpus(4));
    guest.output.expect(".");
    drop(guest.vm);
    // The last vCPU thread held the console; nobody can write to it any more.
    assert_eq!(guest.output.writers(), 1);
}

fn many_waiters() {
    let guest = Guest::boot("spin");
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| guest.vm.wait().unwrap()))
            .collect();
        guest.vm.stop();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), ExitReason::Stopped);
        }
    });
}

fn traced() {
    let guest = Guest::boot("boot_timer");
    guest.wait().unwrap();
    let trace = guest.vm.boot_trace();
    let phases: Vec<_> = trace.phases().into_iter().map(|(phase, _)| phase).collect();
    assert_eq!(phases, Phase::ALL);
    let stats = guest.vm.vcpu_stats();
    assert_eq!((stats.len(), stats[0].mmio_writes), (1, 1));
    assert!(stats[0].exits() >= 2, "{stats:?}");
}

fn never_started() {
    let config = VmConfig::builder()
        .kernel(crate::harness::program("spin"))
        .memory(64.mib());
    drop(Vm::new(config.build().unwrap()).unwrap());
}

fn stopping_at_once() {
    for _ in 0..20 {
        let guest = Guest::boot_with("spin", |c| c.vcpus(3));
        guest.vm.stop();
        assert_eq!(guest.vm.wait().unwrap(), ExitReason::Stopped);
    }
}

/// A VM with a thread of each kind that needs no privileges, and its console.
fn with_disk(name: &str) -> (Vm, Output, tempfile::NamedTempFile) {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let config = VmConfig::builder()
        .kernel(program(name))
        .disk(Disk::read_write(image.path()))
        .vcpus(2);
    let output = Output::default();
    let vm = Vm::with_console(config.build().unwrap(), output.clone()).unwrap();
    (vm, output, image)
}

fn threads_begin() {
    let (vm, output, _image) = with_disk("spin");
    let begun = Arc::new(Mutex::new(Vec::new()));
    let list = begun.clone();
    let vm = vm
        .start_paused(move |kind| {
            list.lock().unwrap().push(kind);
            Ok(())
        })
        .and_then(Starting::wait)
        .unwrap();
    let begun = begun.lock().unwrap();
    let count = |kind| begun.iter().filter(|begun| **begun == kind).count();
    let kinds = [ThreadKind::Rng, ThreadKind::Block, ThreadKind::Vcpu];
    assert_eq!((kinds.map(count), begun.len()), ([1, 1, 2], 4), "{begun:?}");
    assert_eq!((vm.state(), output.text()), (State::Paused, String::new()));
    vm.resume().unwrap();
    output.expect("..");
    vm.pause().unwrap();
    vm.stop();
}

fn thread_refused() {
    for refused in [ThreadKind::Block, ThreadKind::Vcpu] {
        let (vm, output, _image) = with_disk("spin");
        let error = vm
            .start_paused(move |kind| match kind == refused {
                true => Err(io::Error::other("not here")),
                false => Ok(()),
            })
            .and_then(Starting::wait)
            .err()
            .unwrap();
        assert!(error.to_string().contains("a thread for a"), "{error}");
        assert_eq!(output.text(), "");
    }
}
