//! Real services on virtio disks and interfaces, reached over TCP in a network namespace of the tests' own.

use crate::harness::Test;
use crate::harness::patience::eventually;
use crate::packets::enter_own_network;
use crate::tree;
use crate::{DEADLINE, cache};
use kvmlet_image::pack::{self, Owners};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("nginx_serves_a_large_file_and_many_small_ones", || {
        in_own_network(nginx)
    }),
    (
        "redis_keeps_what_it_acknowledged_when_the_vmm_is_killed",
        || in_own_network(redis),
    ),
];

/// Runs a test on a thread of its own, because a network namespace belongs to a thread; it ends with the test.
fn in_own_network(test: fn()) {
    let thread = std::thread::spawn(move || {
        if let Err(reason) = enter_own_network() {
            println!("SKIPPED: {reason}");
            return;
        }
        run(Command::new("ip").args(["link", "set", "lo", "up"]));
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

const BIG: usize = 8 << 20;

/// A VM in the background, with its console in a file.
struct Service {
    vm: Child,
    console: PathBuf,
}

impl Service {
    fn start(console: PathBuf, arguments: &[&str]) -> Self {
        let output = std::fs::File::create(&console).unwrap();
        let vm = Command::new(env!("CARGO_BIN_EXE_kvmlet"))
            .arg("boot")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { vm, console }
    }

    /// Tries until `attempt` succeeds, as long as the VM runs.
    fn until<T>(&mut self, mut attempt: impl FnMut() -> std::io::Result<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let error = match attempt() {
                Ok(value) => return value,
                Err(error) => error,
            };
            let ended = self.vm.try_wait().unwrap();
            let late = Instant::now() > deadline;
            if ended.is_some() || late {
                let console = std::fs::read_to_string(&self.console).unwrap_or_default();
                panic!("no answer ({error}), VM {ended:?}, console:\n{console}");
            }
            // The pause between attempts; what counts is the answer, not when it comes.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The line of the console that begins so.
    fn line(&mut self, start: &str) -> String {
        let console = self.console.clone();
        self.until(|| {
            let text = std::fs::read(&console)?;
            let text = String::from_utf8_lossy(&text);
            let whole = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            let found = whole
                .map(str::trim_end)
                .find(|line| line.starts_with(start));
            found.map(str::to_owned).ok_or(ErrorKind::NotFound.into())
        })
    }

    fn signal(&mut self, signal: i32) -> std::process::ExitStatus {
        // SAFETY: the child has not been waited for, so the number is its own.
        unsafe { libc::kill(self.vm.id() as i32, signal) };
        self.vm.wait().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.vm.kill();
        let _ = self.vm.wait();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}

fn image(name: &str) -> String {
    cache().join("images").join(name).to_str().unwrap().into()
}

/// Taps of kvmlet's in this namespace.
fn taps() -> usize {
    let interfaces = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    interfaces
        .lines()
        .filter(|line| line.trim_start().starts_with("kvmlet"))
        .count()
}

/// One request, by HTTP/1.0; the body.
fn get(path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect("127.0.0.1:8080")?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    match end {
        Some(end) if answer.starts_with(b"HTTP/1.1 200") => Ok(answer.split_off(end + 4)),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

fn nginx() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    // The image as it is built, with a file of known contents added.
    let (root, with_file) = (path("root"), path("nginx.erofs"));
    run(Command::new("fsck.erofs")
        .arg(format!("--extract={}", root.display()))
        .arg(image("nginx.erofs")));
    let big: Vec<u8> = (0..BIG as u32 / 4)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    std::fs::write(root.join("srv/big"), &big).unwrap();
    // And a tree, with the program that tells in the guest what it looks like there.
    tree::make(&root.join("srv/tree"));
    std::fs::copy(std::env::current_exe().unwrap(), root.join("tell")).unwrap();
    let packed = std::fs::File::create(&with_file).unwrap();
    pack::image(&root, Owners::Root, &packed, |_, _| {}).unwrap();

    // What the packages have installed, and what was made for the purpose.
    let trees = ["/usr", "/srv/tree"];
    let stats = path("stats.json");
    let mut service = Service::start(
        path("console"),
        &[
            "--root",
            with_file.to_str().unwrap(),
            "-p",
            "8080:80",
            "--stats",
            stats.to_str().unwrap(),
            "--stop-timeout",
            "120",
            "--",
            "/tell",
            tree::PROGRAM,
        ]
        .into_iter()
        .chain(trees)
        .chain(["--", "/usr/sbin/nginx", "-c", "/etc/nginx/kvmlet.conf"])
        .collect::<Vec<_>>(),
    );
    for tree in trees {
        let told = service.line(&format!("tree {tree} "));
        assert_eq!(told, tree::tell(&root.join(&tree[1..]), tree));
    }
    let index = service.until(|| get("/"));
    assert!(
        String::from_utf8_lossy(&index).contains("microVM"),
        "{index:?}"
    );
    assert_eq!(taps(), 1);
    assert!(
        service.until(|| get("/big")) == big,
        "8 MiB arrive as they are"
    );
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..4).map(|_| get("/").unwrap()).collect::<Vec<_>>()))
            .collect();
        for client in clients {
            assert!(client.join().unwrap().iter().all(|page| *page == index));
        }
    });
    // nginx hears of it, and ends by itself.
    assert_eq!(service.signal(libc::SIGTERM).code(), Some(0));
    eventually("the tap goes with the VM", || taps() == 0);
    let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(stats).unwrap()).unwrap();
    assert!(
        stats["disks"][0]["read_bytes"].as_u64().unwrap() > BIG as u64,
        "{stats}"
    );
    let sent = |what: &str| stats["interfaces"][0]["transmit"][what].as_u64().unwrap();
    assert!(sent("bytes") > BIG as u64, "{stats}");
    // Pages among them are small, and each packet of its own would have 1.5 kB, or 3 kB with its like.
    assert!(
        sent("bytes") / sent("frames") > 6000,
        "TCP fills its frames: {stats}"
    );
}

/// A redis command in its inline form; the first line of the answer, and the second where there is one.
fn command(text: &str) -> std::io::Result<String> {
    let stream = TcpStream::connect("127.0.0.1:6379")?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(&stream, "{text}\r\n")?;
    let mut lines = BufReader::new(&stream).lines();
    let first = lines.next().ok_or(ErrorKind::UnexpectedEof)??;
    match first.starts_with('$') && first != "$-1" {
        true => lines.next().ok_or(ErrorKind::UnexpectedEof)?,
        false if first.starts_with('-') => Err(std::io::Error::other(first)),
        false => Ok(first),
    }
}

fn redis() {
    let directory = tempfile::tempdir().unwrap();
    let scratch = directory.path().join("scratch.ext4");
    std::fs::File::create(&scratch)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    run(Command::new("mkfs.ext4").arg("-q").arg(&scratch));
    let start = |name: &str| {
        let arguments = [
            "--root",
            &image("redis.erofs"),
            "--scratch",
            path_str(&scratch),
            "-p",
            "6379:6379",
        ];
        Service::start(directory.path().join(name), &arguments)
    };
    let mut first = start("first");
    assert_eq!(first.until(|| command("PING")), "+PONG");
    // Acknowledged only when it is in the append-only file and that on the disk.
    assert_eq!(command("CONFIG SET appendfsync always").unwrap(), "+OK");
    assert_eq!(command("SET key value-that-must-survive").unwrap(), "+OK");
    first.signal(libc::SIGKILL);

    let mut second = start("second");
    assert_eq!(
        second.until(|| command("GET key")),
        "value-that-must-survive"
    );
    assert_eq!(taps(), 1, "what the killed VM left was cleared");
    second.signal(libc::SIGTERM);
    eventually("the second tap is gone", || taps() == 0);
}

fn path_str(path: &Path) -> &str {
    path.to_str().unwrap()
}
