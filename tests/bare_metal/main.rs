//! Ring 2: small freestanding guests on real KVM, through the library.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

use kvmlet_harness as harness;
use kvmlet_harness::packets;

mod balloon;
mod block_device;
mod bounded;
mod cli;
mod clients;
mod console;
mod control;
mod departures;
mod descriptors;
mod differences;
mod disk_content;
mod disk_shared;
mod disk_use;
mod endings;
mod footprint;
mod health;
mod hostile;
mod idle;
mod instance;
mod instances;
mod interrupted;
mod jail;
mod lifecycle;
mod limits;
mod lists;
mod live;
mod machine;
mod network;
mod other_hosts;
mod pager;
mod passt;
mod pauses;
mod pci;
mod pools;
mod ports;
mod quota;
mod random;
mod reboot;
mod snapshot;
mod stats;
mod stop;
mod supervisor;
mod supervisor_memory;
mod suspended;
mod templates;
mod terminal;
mod turns;
mod unkind_host;
mod unread_log;
mod virtio;
mod vsock;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    kvmlet_run::instance::init();
    harness::pager::init();
    let tests = [
        balloon::TESTS,
        block_device::TESTS,
        bounded::TESTS,
        disk_content::TESTS,
        disk_shared::TESTS,
        disk_use::TESTS,
        cli::TESTS,
        clients::TESTS,
        console::TESTS,
        control::TESTS,
        endings::TESTS,
        footprint::TESTS,
        health::TESTS,
        hostile::TESTS,
        instance::TESTS,
        instances::TESTS,
        interrupted::TESTS,
        jail::TESTS,
        lifecycle::TESTS,
        limits::TESTS,
        lists::TESTS,
        live::TESTS,
        machine::TESTS,
        network::TESTS,
        other_hosts::TESTS,
        pager::TESTS,
        passt::TESTS,
        pauses::TESTS,
        pci::TESTS,
        pools::TESTS,
        ports::TESTS,
        departures::TESTS,
        descriptors::TESTS,
        differences::TESTS,
        quota::cpu::TESTS,
        quota::halting::TESTS,
        quota::launches::TESTS,
        quota::memory::TESTS,
        random::TESTS,
        reboot::TESTS,
        snapshot::TESTS,
        stats::TESTS,
        supervisor::TESTS,
        supervisor_memory::TESTS,
        suspended::TESTS,
        idle::TESTS,
        stop::TESTS,
        templates::TESTS,
        terminal::TESTS,
        turns::TESTS,
        unkind_host::TESTS,
        unread_log::TESTS,
        virtio::TESTS,
        vsock::TESTS,
    ]
    .concat();
    harness::run(libtest_mimic::Arguments::from_args(), &tests, harness::kvm)
}
