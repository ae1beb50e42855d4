//! Firecracker that goes on from a snapshot. It takes one by its API only, so a program of ours executes it and asks for that.

use super::{Contestant, Kind, Presence, Service, probe_program};
use crate::launch::Launch;
use crate::leftovers;
use crate::workshop::Workshop;
use kvmlet_sys::kvm;
use kvmlet_sys::process::{self, Fork, fork};
use rustix::process::{Signal, getppid, kill_process};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The word by which `kvmlet-bench` is that program. Behind it stand the socket, the two files, and Firecracker's command.
pub const WORD: &str = "load-into-firecracker";
const PROGRAM: &str = "firecracker";
/// How long it has to listen, and to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing is asked while it does not listen yet.
const PAUSE: Duration = Duration::from_micros(100);
/// No answer is longer.
const ANSWER_BYTES: u64 = 64 << 10;

/// Firecracker with a guest that says again and again that it is ready.
pub(super) struct FirecrackerSnapshot {
    directory: PathBuf,
}

impl FirecrackerSnapshot {
    pub fn new() -> Self {
        let directory = PathBuf::new();
        Self { directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// A guest without a kernel, as an ELF file: it needs nothing of the machine but a serial port, so that it is the same for everybody
/// who boots such files, and says so before and after a snapshot.
fn guest() -> Vec<u8> {
    const START: u64 = 1 << 20;
    const HEADS: u64 = 64 + 56;
    let mut code = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8
    for byte in b"ready\n" {
        code.extend([0xb0, *byte, 0xee]); // mov al, byte; out dx, al
    }
    code.extend([0xeb, 0xec]); // jmp to the first of these
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let mut put = |number: u64, bytes: usize| file.extend(&number.to_le_bytes()[..bytes]);
    // An executable for x86-64, its entry, where its program header is, and how large all of these are.
    for (number, bytes) in [
        (2, 2),
        (62, 2),
        (1, 4),
        (START + HEADS, 8),
        (64, 8),
        (0, 8),
        (0, 4),
    ] {
        put(number, bytes);
    }
    for number in [64, 56, 1, 64, 0, 0] {
        put(number, 2);
    }
    let length = HEADS + code.len() as u64;
    // One segment, to be read and executed: all of the file.
    for (number, bytes) in [
        (1, 4),
        (5, 4),
        (0, 8),
        (START, 8),
        (START, 8),
        (length, 8),
        (length, 8),
        (4096, 8),
    ] {
        put(number, bytes);
    }
    file.extend(code);
    file
}

impl Contestant for FirecrackerSnapshot {
    fn name(&self) -> &'static str {
        "firecracker-snapshot"
    }

    fn about(&self) -> &'static str {
        "Firecracker that loads a snapshot of a guest without a kernel, 128 MiB, 1 vCPU, by its API; executed by a program that asks for that; killed once it is ready"
    }

    fn kind(&self) -> Kind {
        Kind::BareMetal
    }

    fn probe(&self) -> Presence {
        let presence = probe_program(PROGRAM, "--version", super::firecracker::INSTALL);
        match (&presence, kvm::open()) {
            (Presence::Present { .. }, Err(error)) => Presence::Unusable {
                message: error.to_string(),
            },
            _ => presence,
        }
    }

    fn prepare(&mut self, workshop: &Workshop) -> Result<(), String> {
        self.directory = workshop.path().join(self.name());
        let failed = |error: io::Error| format!("`{PROGRAM}` cannot be prepared: {error}");
        fs::create_dir_all(&self.directory).map_err(failed)?;
        let (kernel, socket) = (self.file("guest"), self.file("socket"));
        fs::write(&kernel, guest()).map_err(failed)?;
        let mut command = Command::new(PROGRAM);
        command
            .args(["--log-path", "/dev/null", "--api-sock"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        leftovers::mark(&mut command, &socket);
        let mut vm = Killed(command.spawn().map_err(failed)?);
        let begun = Instant::now();
        while UnixStream::connect(&socket).is_err() && begun.elapsed() < PATIENCE {
            if let Some(status) = vm.0.try_wait().map_err(failed)? {
                return Err(format!(
                    "`{PROGRAM}` has ended before it listened: {status}"
                ));
            }
            std::thread::sleep(PAUSE);
        }
        let ask = |method: &str, path: &str, body: Value| ask(&socket, method, path, &body);
        ask(
            "PUT",
            "/machine-config",
            json!({"vcpu_count": 1, "mem_size_mib": 128}),
        )?;
        ask("PUT", "/boot-source", json!({"kernel_image_path": kernel}))?;
        ask("PUT", "/actions", json!({"action_type": "InstanceStart"}))?;
        let said = vm.0.stdout.take().map(BufReader::new);
        let mut lines = said.into_iter().flat_map(BufRead::lines);
        if !lines.any(|line| line.is_ok_and(|line| line.trim() == "ready")) {
            return Err(format!(
                "the guest of `{PROGRAM}` that is to be saved says nothing"
            ));
        }
        ask("PATCH", "/vm", json!({"state": "Paused"}))?;
        let files =
            json!({"snapshot_path": self.file("state"), "mem_file_path": self.file("memory")});
        ask("PUT", "/snapshot/create", files)
    }

    fn launch(&self, number: usize, _service: Service) -> Result<Launch, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let socket = self.file(&format!("{number}.socket"));
        // One that was killed leaves it.
        let _ = fs::remove_file(&socket);
        let (state, memory) = (self.file("state"), self.file("memory"));
        let words = [
            own.as_os_str(),
            OsStr::new(WORD),
            socket.as_os_str(),
            state.as_os_str(),
        ];
        let firecracker = [PROGRAM, "--log-path", "/dev/null", "--api-sock"].map(OsStr::new);
        let words = words
            .into_iter()
            .chain([memory.as_os_str()])
            .chain(firecracker);
        Ok(Launch {
            stays: true,
            ..Launch::new(words.chain([socket.as_os_str()]))
        })
    }
}

/// A process that goes with this.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Is that program: goes on as Firecracker, while a process beside it has that load a snapshot. Returns what is wrong.
pub fn load(words: impl Iterator<Item = OsString>) -> String {
    let words: Vec<OsString> = words.collect();
    let [socket, state, memory, program, arguments @ ..] = &words[..] else {
        return "a socket, two files and a command are wanted".into();
    };
    match fork(0, None) {
        Err(error) => error.to_string(),
        Ok(Fork::Parent(_)) => {
            let error = Command::new(program).args(arguments).exec();
            format!("`{}` cannot be executed: {error}", program.display())
        }
        Ok(Fork::Child(_lifeline)) => {
            let body = json!({
                "snapshot_path": Path::new(state),
                "mem_backend": {"backend_type": "File", "backend_path": Path::new(memory)},
                "resume_vm": true,
            });
            let done = ask(Path::new(socket), "PUT", "/snapshot/load", &body);
            if let Err(error) = &done {
                let _ = writeln!(io::stderr(), "{error}");
                // Nobody waits for a line that does not come.
                if let Some(parent) = getppid() {
                    let _ = kill_process(parent, Signal::KILL);
                }
            }
            process::end(u8::from(done.is_err()))
        }
    }
}

/// Asks Firecracker for something, as soon as it listens.
fn ask(socket: &Path, method: &str, path: &str, body: &Value) -> Result<(), String> {
    let failed = |error: io::Error| format!("`{PROGRAM}` does not answer {method} {path}: {error}");
    let deadline = Instant::now() + PATIENCE;
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => return Err(failed(error)),
            Err(_) => std::thread::sleep(PAUSE),
        }
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let body = body.to_string();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let answer = answer(stream).map_err(failed)?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    match status.starts_with('2') {
        true => Ok(()),
        false => {
            let said = answer
                .split_once("\r\n\r\n")
                .map_or(&*answer, |(_, said)| said);
            Err(format!("`{PROGRAM}` refuses {method} {path}: {said}"))
        }
    }
}

/// The head of an answer, and as much behind it as that says.
fn answer(stream: impl Read) -> io::Result<String> {
    let mut stream = BufReader::new(stream.take(ANSWER_BYTES));
    let (mut text, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((key, value)) = line.split_once(':')
            && key.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
        text += &line;
        if line.trim_end().is_empty() {
            break;
        }
    }
    stream.take(length).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_head_and_what_that_says() {
        let refused = "HTTP/1.1 400 \r\nContent-Length: 5\r\n\r\nno. more";
        assert!(
            answer(refused.as_bytes())
                .unwrap()
                .ends_with("\r\n\r\nno. m")
        );
        let done = "HTTP/1.1 204 \r\nServer: x\r\n\r\n";
        assert_eq!(answer(done.as_bytes()).unwrap(), done);
        assert!(answer(&b"HTTP/1.1 204 \r\n"[..]).is_err());
    }

    #[test]
    fn the_guest_jumps_back_to_its_first_letter() {
        let file = guest();
        let back = file.last().copied().unwrap() as i8;
        assert_eq!(
            file[(file.len() as isize + isize::from(back)) as usize..][..3],
            [0xb0, b'r', 0xee]
        );
        assert_eq!(
            u64::from_le_bytes(file[24..32].try_into().unwrap()),
            (1 << 20) + 120
        );
        assert_eq!(
            u64::from_le_bytes(file[96..104].try_into().unwrap()),
            file.len() as u64
        );
    }
}
