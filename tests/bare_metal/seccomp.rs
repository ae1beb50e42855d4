//! The lists of system calls, against what VMs really call.

use crate::harness::{Test, program};
use crate::watch::{Seen, Watched};
use std::io::Write;
use std::process::{Command, Stdio};

pub const TESTS: &[Test] = &[("spike_seccomp", spike)];

fn kvmlet(name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    command
        .args(["boot", "--kernel"])
        .arg(program(name))
        .stdin(Stdio::null());
    command
}

fn name(n: i64) -> String {
    let t = include_str!("../../src/host/seccomp/syscalls.txt");
    t.lines()
        .find_map(|l| {
            l.split_once(' ')
                .filter(|(a, _)| a.parse::<i64>().unwrap() == n)
        })
        .unwrap()
        .1
        .into()
}

fn show(all: &Seen) {
    let mut names: Vec<_> = all.keys().collect();
    names.sort();
    for thread in names {
        println!("== {thread}");
        let mut lines = std::collections::BTreeSet::new();
        for call in &all[thread] {
            lines.insert(match call.number {
                libc::SYS_ioctl => format!("ioctl {:#x}", call.arguments[1]),
                libc::SYS_madvise => format!("madvise {}", call.arguments[2]),
                libc::SYS_mmap => format!(
                    "mmap len={:#x} prot={}",
                    call.arguments[1], call.arguments[2]
                ),
                libc::SYS_mprotect => format!("mprotect {}", call.arguments[2]),
                libc::SYS_fcntl => format!("fcntl {}", call.arguments[1]),
                libc::SYS_tgkill => format!("tgkill sig={}", call.arguments[2]),
                libc::SYS_io_uring_register => format!("io_uring_register {}", call.arguments[1]),
                libc::SYS_rt_sigaction => format!("rt_sigaction {}", call.arguments[0]),
                _ => name(call.number),
            });
        }
        println!("{}", lines.into_iter().collect::<Vec<_>>().join(", "));
    }
}

fn spike() {
    let mut all = Seen::new();
    let mut image = tempfile::NamedTempFile::new().unwrap();
    image.write_all(&vec![7u8; 8 << 20]).unwrap();
    let disk = |more: &str| format!("{}{more}", image.path().display());
    let mut run = |mut command: Command| {
        let out = tempfile::tempfile().unwrap();
        command
            .stdout(out.try_clone().unwrap())
            .stderr(out.try_clone().unwrap());
        let mut watched = Watched::spawn(command);
        let status = watched.child.wait().unwrap();
        let seen = watched.seen();
        println!("{status}");
        for (k, v) in seen {
            all.entry(k).or_default().extend(v);
        }
    };
    for guest in [
        "serial_echo",
        "power_off",
        "reset",
        "panic",
        "triple_fault",
        "smp",
        "bad_instruction",
        "mmio_nowhere",
    ] {
        let mut c = kvmlet(guest);
        c.args(["--cpus", "2"]);
        let out = std::process::Command::new("true");
        let _ = out;
        if guest == "serial_echo" {
            continue;
        }
        run(c);
    }
    let mut c = kvmlet("virtio_rng");
    c.args(["--cmdline", "mmio=0xd0001000"]);
    run(c);
    for more in [
        "",
        ",io=sync,cache=writethrough",
        ",iops=1000,iops-burst=10",
    ] {
        let mut c = kvmlet("virtio_blk");
        c.args([
            "--cmdline",
            "mmio=0xd0002000",
            "--disk",
            &disk(more),
            "--stats",
            "/tmp/jailm/stats",
        ]);
        run(c);
    }
    show(&all);
}
