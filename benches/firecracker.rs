//! What a start by Firecracker's API costs: `cargo bench --bench firecracker [-- --rounds N]`, after
//! `cargo build --release -p kvmlet-cli -p kvmlet-serve`.
//!
//! The clock starts before the process is spawned. A client tries to connect until it can, describes a machine, a kernel and a
//! disk on one connection, starts the VM, and reads the first byte of a bare-metal guest. A Firecracker on PATH that is not
//! kvmlet takes turns with it, if there is one. Figures are medians.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed benchmark

use kvmlet_harness as harness;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const WARM_UP: usize = 5;
/// What is told, in its order.
const STEPS: [&str; 4] = [
    "the socket accepts",
    "the VM is described",
    "the guest's first byte",
    "the process is gone",
];

fn main() {
    let rounds = harness::argument("--rounds", 100);
    if let Err(reason) = harness::kvm() {
        return println!("SKIPPED: {reason}");
    }
    let serve = harness::kvmlet().with_file_name("kvmlet-serve");
    assert!(serve.exists(), "build kvmlet-serve first");
    let own = std::fs::metadata(&serve).unwrap().len();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let others = std::env::split_paths(&paths);
    let other = others
        .map(|place| place.join("firecracker"))
        .find(|path| std::fs::metadata(path).is_ok_and(|found| found.len() != own));
    let programs: Vec<PathBuf> = std::iter::once(serve).chain(other).collect();
    let kernel = harness::ready_guest("ready_stay");
    let place = tempfile::tempdir().unwrap();
    let disk = place.path().join("disk");
    std::fs::File::create(&disk)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let mut times = vec![Vec::new(); programs.len()];
    for round in 0..WARM_UP + rounds {
        for (program, times) in programs.iter().zip(&mut times) {
            let measured = start(program, place.path(), &kernel, &disk);
            if round >= WARM_UP {
                times.push(measured);
            }
        }
    }
    for (program, times) in programs.iter().zip(&times) {
        println!("{} ({rounds} rounds)", program.display());
        for (step, name) in STEPS.iter().enumerate() {
            let mut all: Vec<Duration> = times.iter().map(|times| times[step]).collect();
            all.sort_unstable();
            let at = |part: usize| all[all.len() * part / 10].as_secs_f64() * 1e3;
            println!(
                "  {name:<24} {:7.2} ms  ({:.2} to {:.2})",
                at(5),
                at(1),
                at(9)
            );
        }
    }
}

/// One start, and when each step was done.
fn start(program: &Path, place: &Path, kernel: &Path, disk: &Path) -> [Duration; 4] {
    let socket = place.join("api");
    let _ = std::fs::remove_file(&socket);
    let mut command = Command::new(program);
    if program.ends_with("kvmlet-serve") {
        command.arg("firecracker");
    }
    command.arg("--api-sock").arg(&socket);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let since = Instant::now();
    let mut process = command.spawn().unwrap();
    let mut stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(Duration::from_micros(20)),
        }
    };
    let accepts = since.elapsed();
    let (kernel, disk) = (kernel.display(), disk.display());
    for (path, body) in [
        (
            "/machine-config",
            r#"{"vcpu_count":1,"mem_size_mib":128}"#.to_owned(),
        ),
        (
            "/boot-source",
            format!(r#"{{"kernel_image_path":"{kernel}","boot_args":""}}"#),
        ),
        (
            "/drives/d",
            format!(r#"{{"drive_id":"d","path_on_host":"{disk}","is_root_device":false}}"#),
        ),
    ] {
        ask(&mut stream, path, &body);
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer).unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 204"), "{path}");
    }
    let described = since.elapsed();
    ask(
        &mut stream,
        "/actions",
        r#"{"action_type":"InstanceStart"}"#,
    );
    let mut output = process.stdout.take().unwrap();
    output.read_exact(&mut [0]).unwrap();
    let speaks = since.elapsed();
    process.kill().unwrap();
    process.wait().unwrap();
    // All that had the guest's console is gone with it.
    output.read_to_end(&mut Vec::new()).unwrap();
    [accepts, described, speaks, since.elapsed()]
}

fn ask(stream: &mut UnixStream, path: &str, body: &str) {
    let length = body.len();
    let text = format!("PUT {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).unwrap();
}
