//! Sockets between guest and host, with someone else's driver in the guest.

use crate::cli::{kvmlet, run, text, vm_process_if_any};
use crate::harness::{Test, deadline, patience::eventually};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

pub const TESTS: &[Test] = &[
    ("vsock_connects_both_ways_in_a_jail", || both_ways(&[])),
    ("vsock_connects_both_ways_without_a_jail", || {
        both_ways(&["--no-jail"])
    }),
    ("vsock_has_hundreds_of_connections", hundreds),
    ("vsock_moves_much_in_either_direction", much),
    ("vsock_replaces_dead_sockets_and_refuses_live_ones", names),
    ("vsock_is_there_again_after_a_kill", after_a_kill),
    ("vsock_with_malformed_queues_goes_on", malformed),
];

/// The device is behind the entropy source.
pub const CMDLINE: &str = "mmio=0xd0002000";
const ECHO: &str = "CONNECT 7\n";

/// A place for sockets, short enough for their addresses.
pub fn place() -> (TempDir, PathBuf) {
    let place = tempfile::Builder::new()
        .prefix("vs")
        .tempdir_in("/tmp")
        .unwrap();
    let path = place.path().join("v");
    (place, path)
}

fn beside(path: &Path, port: u32) -> PathBuf {
    format!("{}_{port}", path.display()).into()
}

fn vsock(name: &str, path: &Path, cmdline: &str) -> Command {
    let mut command = kvmlet(name);
    let cmdline = format!("{CMDLINE} {cmdline}");
    command.args(["--cmdline", &cmdline, "--vsock"]).arg(path);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn limited(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(deadline())).unwrap();
    stream.set_write_timeout(Some(deadline())).unwrap();
    stream
}

/// What the guest connects to.
pub fn accept(listener: &UnixListener) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    eventually("the guest connects", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (stream, _) = accepted.unwrap();
    stream.set_nonblocking(false).unwrap();
    limited(stream)
}

/// Connects as programs that know Firecracker do.
pub fn connect(path: &Path, line: &str) -> UnixStream {
    let mut stream = None;
    eventually("there is a socket", || {
        stream = UnixStream::connect(path).ok();
        stream.is_some()
    });
    let mut stream = limited(stream.unwrap());
    stream.write_all(line.as_bytes()).unwrap();
    let mut answer = String::new();
    // Byte by byte: what is behind it is the service's.
    while !answer.ends_with('\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0].into());
    }
    let port = answer
        .strip_prefix("OK ")
        .and_then(|port| port.trim().parse().ok());
    assert!(port.is_some_and(|port: u32| port >= 1 << 30), "{answer}");
    stream
}

/// A connection to what echoes, once that is there.
pub fn echo(path: &Path) -> UnixStream {
    connect(path, ECHO)
}

fn exchange(stream: &mut UnixStream, data: &[u8]) {
    stream.write_all(data).unwrap();
    let mut back = vec![0; data.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, data);
}

fn quit(path: &Path, child: Child) -> Output {
    let mut last = echo(path);
    last.write_all(b"quit").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    output
}

fn both_ways(flags: &[&str]) {
    let (_place, path) = place();
    let listener = UnixListener::bind(beside(&path, 1024)).unwrap();
    let child = vsock("virtio_vsock", &path, "connect=1024")
        .args(flags)
        .spawn()
        .unwrap();
    let mut service = accept(&listener);
    let mut hello = [0; 5];
    service.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    exchange(&mut service, b"from one to the other");
    let mut program = echo(&path);
    exchange(&mut program, b"and back");
    // Much more than any buffer on the way has.
    let all: Vec<u8> = (0..3 << 20).map(|index: u32| (index / 3) as u8).collect();
    let mut reader = program.try_clone().unwrap();
    let bytes = all.len();
    let reading = std::thread::spawn(move || {
        let mut back = vec![0; bytes];
        reader.read_exact(&mut back).unwrap();
        back
    });
    program.write_all(&all).unwrap();
    assert!(reading.join().unwrap() == all);
    // What nobody listens on is closed, without a word.
    let mut nobody = limited(UnixStream::connect(&path).unwrap());
    nobody.write_all(b"CONNECT 8\n").unwrap();
    assert_eq!(nobody.read(&mut [0]).unwrap(), 0);
    // The guest hears that a program is gone, and agrees.
    drop(program);
    let output = quit(&path, child);
    let said = text(&output.stdout);
    assert!(
        said.contains("cid=3\n") && said.contains("port 7: Shutdown"),
        "{said}"
    );
    assert!(!path.exists(), "its socket goes with it");
    assert_eq!(service.read(&mut [0]).unwrap_or(0), 0);
}

fn hundreds() {
    let (_place, path) = place();
    let child = vsock("virtio_vsock", &path, "").spawn().unwrap();
    let mut programs: Vec<_> = (0..300).map(|_| echo(&path)).collect();
    for (number, program) in programs.iter_mut().enumerate() {
        exchange(program, format!("this is number {number}").as_bytes());
    }
    let said = text(&quit(&path, child).stdout);
    assert!(said.contains("connections=301 "), "{said}");
}

/// What a guest sends, and what it is sent, to the last byte.
fn much() {
    const BYTES: usize = 64 << 20;
    for mode in ["send", "receive"] {
        let (_place, path) = place();
        let listener = UnixListener::bind(beside(&path, 1024)).unwrap();
        let cmdline = format!("mode={mode} bytes={BYTES}");
        let child = vsock("virtio_vsock_bench", &path, &cmdline)
            .spawn()
            .unwrap();
        let mut service = accept(&listener);
        let mut buffer = vec![0; 64 << 10];
        match mode {
            "send" => {
                let mut bytes = 0;
                loop {
                    match service.read(&mut buffer).unwrap() {
                        0 => break,
                        count => bytes += count,
                    }
                }
                assert_eq!(bytes, BYTES);
            }
            _ => {
                (0..BYTES / buffer.len()).for_each(|_| service.write_all(&buffer).unwrap());
                drop(service);
            }
        }
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains(&format!("{mode} bytes={BYTES} ")), "{said}");
    }
}

fn names() {
    let (place, path) = place();
    drop(UnixListener::bind(&path).unwrap());
    let child = vsock("virtio_vsock", &path, "").spawn().unwrap();
    let mut program = echo(&path);
    let second = run(&mut vsock("power_off", &path, ""));
    let said = text(&second.stderr);
    assert_eq!(second.status.code(), Some(125), "{said}");
    let told = format!("`{}` is in use: a program listens there", path.display());
    assert!(said.contains(&told) && said.contains("help: "), "{said}");
    exchange(&mut program, b"still here");
    quit(&path, child);
    let file = place.path().join("file");
    std::fs::write(&file, "text").unwrap();
    for (path, what) in [
        (file.clone(), "is there already, and not a socket"),
        (place.path().join("none/v"), "cannot make the socket"),
        (place.path().join("x".repeat(100)), "and 96 is the most"),
    ] {
        for flags in [&[][..], &["--no-jail"]] {
            let output = run(vsock("power_off", &path, "").args(flags));
            let said = text(&output.stderr);
            assert!(said.contains(what), "{said}");
            assert!(!output.status.success());
        }
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"text");
}

/// The socket that a killed supervisor leaves is nobody's, and the VM is gone with it.
fn after_a_kill() {
    let (_place, path) = place();
    let mut first = vsock("virtio_vsock", &path, "").spawn().unwrap();
    let mut program = echo(&path);
    assert!(vm_process_if_any(&first).is_some());
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(program.read(&mut [0]).unwrap_or(0), 0);
    assert!(path.exists());
    let child = vsock("virtio_vsock", &path, "").spawn().unwrap();
    exchange(&mut echo(&path), b"again");
    quit(&path, child);
}

fn malformed() {
    let (_place, path) = place();
    let child = vsock("virtio_malformed", &path, "devices=0xd0002000")
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{said}{}",
        text(&output.stderr)
    );
    let mut lines = BufReader::new(&output.stdout[..]).lines();
    let is_told = |line: std::io::Result<String>| line.unwrap().contains("device 19: 12 ways");
    assert!(lines.any(is_told), "{said}");
}
