//! Debian's stock kernel that stands still for a minute: its watchdogs are not to take that for a lockup.

use crate::Test;
use crate::host::Host;
use crate::task::{Running, Task};
use kvmlet_spec::{MemorySize, VmConfig};
use kvmlet_vmm::{Vm, VmHandle};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

pub const TESTS: &[Test] = &[("a_stock_kernel_stands_still_for_a_minute", stands_still)];

/// The argument by which this executable is a program that embeds the library.
const PROGRAM: &str = "--takes-orders-for-a-vm";
/// What it takes for orders. Any other line is the guest's.
const PAUSE: &str = "pause";
const RESUME: &str = "resume";
/// Three times what a kernel takes for a soft lockup (20 s) or a stall of RCU (21 s).
const LONG: Duration = Duration::from_secs(60);
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 reboot=k";
/// Busy, so that something is under way when it is paused. It tells how far its clock has gone by the time that it
/// reads a line, and what its kernel has complained of until some time after that: watchdogs look every four seconds. Not
/// all that it has said: the CPU that serves the serial port's interrupts does nothing else meanwhile, which takes so
/// long where this host is busy that RCU calls that a stall.
const GUEST: &str = "while :; do :; done &
    echo cpus=$(nproc) watchdog=$(cat /proc/sys/kernel/soft_watchdog)
    seconds() { cut -d. -f1 /proc/uptime; }
    before=$(seconds); echo standing by; read line
    echo gone=$(($(seconds) - before)); sleep 15
    dmesg | grep -e Linux.version -e [l]ockup -e detected.stall -e blocked.for.more; echo the end";

/// One VM is paused, and the process of another is stopped, as a shell's user does with Ctrl-Z.
fn stands_still(host: &Host) {
    let program = std::env::current_exe().unwrap();
    let mut paused = host.start(Task::new([&program.to_string_lossy(), PROGRAM]).patience(600));
    paused.until("standing by");
    paused.say(&format!("{PAUSE}\n"));
    paused.until(PAUSE);
    let boot = format!(
        "exec kvmlet boot --no-jail --kernel $STOCK --initrd $HOME/.cache/kvmlet/images/minimal.cpio \\
             --cpus 2 --memory 256M --cmdline '{CMDLINE}' -- sh -c '{GUEST}'"
    );
    let mut stopped = host.start(Task::sh(&boot).patience(600));
    stopped.until("standing by");
    stopped.signal(libc::SIGSTOP);
    std::thread::sleep(LONG);
    paused.say(&format!("{RESUME}\n"));
    stopped.signal(libc::SIGCONT);
    for mut vm in [paused, stopped] {
        vm.say("\n");
        vm.until("the end");
        heard_nothing(vm);
    }
}

fn heard_nothing(vm: Running) {
    let output = vm.wait().ended_with(0);
    let text = &output.stdout;
    assert!(text.contains("cpus=2 watchdog=1"), "{output}");
    let gone = text
        .split("gone=")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    let gone: u64 = gone.and_then(|digits| digits.parse().ok()).expect(text);
    assert!(
        gone >= LONG.as_secs() - 1,
        "its clock stood still: {output}"
    );
    assert!(
        text.contains("Linux version"),
        "no messages of the kernel: {output}"
    );
    let complaint = text.lines().find(|line| {
        ["lockup", "detected stall", "blocked for more than"]
            .iter()
            .any(|word| line.contains(word))
    });
    assert_eq!(complaint, None, "{output}");
}

/// There: runs a VM by the library, and does to it what it is told to; `None` if this is another program.
pub fn program() -> Option<ExitCode> {
    (std::env::args().nth(1)? == PROGRAM).then(|| match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}

fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let images = format!("{}/.cache/kvmlet/images", std::env::var("HOME")?);
    let config = VmConfig::builder()
        .kernel(std::env::var("STOCK")?)
        .initrd(format!("{images}/minimal.cpio"))
        .cmdline(CMDLINE)
        .command(["sh", "-c", GUEST])
        .memory(256.mib())
        .vcpus(2)
        .build()?;
    let vm = Arc::new(Vm::with_console(config, std::io::stdout())?.start()?);
    let ordered = vm.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            obey(&ordered, &line).expect("a VM that does what it is told to");
        }
    });
    let reason = vm.wait()?;
    println!("{reason:?}");
    Ok(ExitCode::SUCCESS)
}

fn obey(vm: &VmHandle, order: &str) -> Result<(), kvmlet_vmm::Error> {
    match order {
        PAUSE => vm.pause()?,
        RESUME => vm.resume()?,
        line => {
            vm.console().send(format!("{line}\n").as_bytes());
            return Ok(());
        }
    }
    println!("{order}");
    Ok(())
}
