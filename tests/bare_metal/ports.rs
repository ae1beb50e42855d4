//! Published ports and names, with a guest that has a TCP stack, and the clients that people have.

use crate::cli::{Running, kvmlet, run, text};
use crate::harness::{
    Test, deadline,
    patience::{eventually, seconds},
};
use std::ffi::CString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("published_ports_serve_real_clients", clients),
    ("idle_clients_of_a_user_do_not_shut_out_others", crowd),
    (
        "who_comes_and_goes_fast_does_not_shut_out_others",
        coming_and_going,
    ),
    ("few_descriptors_are_shared_out_or_told", descriptors),
    ("ports_that_cannot_be_published_are_told", refused),
    ("guests_find_names_wherever_the_resolver_is", names),
];

/// A network and a /run of a test's own, for this thread and what it starts.
pub fn enter_own_host() {
    let mount = |source: &str, target: &str, kind: &str, flags| {
        let [source, target, kind] = [source, target, kind].map(|text| CString::new(text).unwrap());
        // SAFETY: all strings end with a zero, and the kernel copies them.
        let result = unsafe {
            let data = std::ptr::null();
            libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data)
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    };
    // SAFETY: no memory is involved; this thread alone moves to new namespaces.
    let moved = unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET) };
    assert_eq!(moved, 0, "{}", std::io::Error::last_os_error());
    mount("none", "/", "none", libc::MS_REC | libc::MS_PRIVATE);
    mount("run", "/run", "tmpfs", 0);
    let list = Path::new("/etc/resolv.conf");
    if let (false, Ok(target)) = (list.exists(), list.read_link()) {
        let target = Path::new("/etc").join(target);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, "").unwrap();
    }
    std::fs::write("/run/resolv.conf", "nameserver ::1\n").unwrap();
    mount(
        "/run/resolv.conf",
        "/etc/resolv.conf",
        "none",
        libc::MS_BIND,
    );
    assert!(
        run(Command::new("ip").args(["link", "set", "lo", "up"]))
            .status
            .success()
    );
}

/// A thread of its own: namespaces belong to a thread, and this one ends with the test.
pub fn on_own_host(body: fn()) {
    let thread = std::thread::spawn(move || {
        enter_own_host();
        body();
    });
    thread.join().unwrap();
}

pub fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(from).lines().map_while(Result::ok);
        lines
            .map_while(|line| sender.send(line).ok())
            .for_each(drop);
    });
    receiver
}

/// Waits for a line with `wanted` in it.
pub fn expect(lines: &Receiver<String>, wanted: &str) -> String {
    let deadline = Instant::now() + deadline();
    let mut seen = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) if line.contains(wanted) => return line,
            Ok(line) => seen.push(line),
            Err(error) => panic!("no {wanted:?}, {error}; so far: {seen:#?}"),
        }
    }
}

/// A VM that serves, with what it and kvmlet print.
pub fn serving(arguments: &[&str]) -> (Running, Receiver<String>, Receiver<String>) {
    serving_with(kvmlet("net_services"), arguments)
}

fn serving_with(
    mut command: Command,
    arguments: &[&str],
) -> (Running, Receiver<String>, Receiver<String>) {
    // The entropy source has the first slot, the interface the one behind.
    command
        .args(["--cmdline", "mmio=0xd0002000"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut vm = Running::spawn(&mut command);
    let (output, errors) = (vm.stdout.take().unwrap(), vm.stderr.take().unwrap());
    let (output, errors) = (lines(output), lines(errors));
    expect(&output, "serving");
    (vm, output, errors)
}

pub fn curl(url: &str) -> String {
    let most = seconds(10).as_secs().to_string();
    let output = run(Command::new("curl").args(["-gsS", "--max-time", &most, url]));
    text(&output.stdout) + &text(&output.stderr)
}

/// As [`curl`], where many connect at once. What the host asks the guest for is asked again after a second then, now and
/// then, and its stack, which is no kernel's, has another socket take that, and resets what it has by then.
fn curl_of_many(url: &str) -> String {
    match curl(url) {
        answer if answer.contains("reset by peer") => curl(url),
        answer => answer,
    }
}

fn clients() {
    on_own_host(|| {
        let ports = [
            "8080:80",
            "localhost:8081:80",
            "[::1]:8082:80",
            "127.0.0.1::80",
            "5353:53/udp",
        ];
        let ranges = ["9000-9001:80-81", "8080-8090:80"];
        let arguments: Vec<&str> = ports
            .iter()
            .chain(&ranges)
            .flat_map(|port| ["-p", port])
            .collect();
        let (mut vm, _output, errors) = serving(&arguments);
        let chosen = expect(&errors, "kvmlet: published 127.0.0.1:");
        let chosen = chosen.rsplit(':').nth(1).unwrap();
        assert!(expect(&errors, "published").contains("published 8083:80/tcp"));
        for address in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "localhost:8081",
            "[::1]:8081",
            "[::1]:8082",
            "127.0.0.1:8083",
            "[::1]:9000",
            &format!("127.0.0.1:{chosen}"),
        ] {
            assert_eq!(
                curl(&format!("http://{address}/")),
                "10.107.0.1\n",
                "{address}"
            );
        }
        for address in ["127.0.0.1:8082", "127.0.0.1:9001", "[::1]:8084"] {
            let failed = curl(&format!("http://{address}/"));
            assert!(failed.starts_with("curl: "), "{address}: {failed}");
        }
        for (from, to) in [("127.0.0.1:0", "127.0.0.1:5353"), ("[::1]:0", "[::1]:5353")] {
            let socket = UdpSocket::bind(from).unwrap();
            socket.set_read_timeout(Some(deadline())).unwrap();
            socket.connect(to).unwrap();
            socket.send(b"who am I?").unwrap();
            let mut answer = [0; 100];
            let bytes = socket.recv(&mut answer).unwrap();
            assert_eq!(text(&answer[..bytes]), "10.107.0.1", "{to}");
        }
        TcpStream::connect("[::1]:8080")
            .unwrap()
            .write_all(b"quit")
            .unwrap();
        assert_eq!(vm.wait().unwrap().code(), Some(0));
        assert!(TcpStream::connect("127.0.0.1:8080").is_err());
    });
}

/// Connects from this thread as another user, this many times.
fn connect_as(user: u32, count: usize) -> Vec<TcpStream> {
    let connect = move || {
        // SAFETY: it concerns this thread only, which ends soon.
        unsafe { libc::setfsuid(user) };
        let connect = |_| TcpStream::connect("127.0.0.1:8080").unwrap();
        (0..count).map(connect).collect()
    };
    std::thread::scope(|scope| scope.spawn(connect).join().unwrap())
}

fn crowd() {
    on_own_host(|| {
        let (_vm, _output, _errors) = serving(&["-p", "8080:80"]);
        let idle = connect_as(1234, 300);
        // Some have a request that comes a byte at a time, and never ends.
        for mut stream in idle.iter().step_by(2) {
            let _ = stream.write(b"G");
        }
        let begun = Instant::now();
        for _ in 0..10 {
            assert_eq!(curl_of_many("http://127.0.0.1:8080/"), "10.107.0.1\n");
        }
        assert!(begun.elapsed() < deadline() / 2, "{:?}", begun.elapsed());
        drop(idle);
        // That user, too, has a right to be served, as soon as the guest is done with what was given up.
        eventually(
            "the user is served",
            || matches!(ask_as(1234), Ok(answer) if answer.ends_with("10.107.0.1\n")),
        );
    });
}

/// What the guest answers that user; see [`curl_of_many`] for why it may be a reset.
fn ask_as(user: u32) -> std::io::Result<String> {
    let mut stream = connect_as(user, 1).remove(0);
    stream.set_read_timeout(Some(deadline()))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Connections that are reset as soon as they are there, as many as this thread can make.
fn come_and_go_as(user: u32, over: &AtomicBool) -> usize {
    // SAFETY: it concerns this thread only, which ends soon.
    unsafe { libc::setfsuid(user) };
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let Ok(client) = TcpStream::connect("127.0.0.1:8080") else {
            continue;
        };
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        count += 1;
    }
    count
}

fn coming_and_going() {
    on_own_host(|| {
        let (_vm, _output, _errors) = serving(&["-p", "8080:80"]);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let over = &over;
            let crowds = [1234; 2].map(|user| scope.spawn(move || come_and_go_as(user, over)));
            let ask = |_| {
                std::thread::sleep(Duration::from_millis(100));
                curl_of_many("http://127.0.0.1:8080/")
            };
            let answers: Vec<String> = (0..20).map(ask).collect();
            over.store(true, Ordering::Relaxed);
            let count: usize = crowds.into_iter().map(|crowd| crowd.join().unwrap()).sum();
            assert!(count > 1000, "{count} is no crowd");
            let served = answers.iter().all(|answer| answer == "10.107.0.1\n");
            assert!(served, "beside {count}: {answers:?}");
        });
    });
}

/// As after `ulimit -n SOFT:HARD`.
fn limited(program: &str, soft: u64, hard: u64) -> Command {
    let mut command = kvmlet(program);
    let set = move || {
        let (current, maximum) = (Some(soft), Some(hard));
        let limit = rustix::process::Rlimit { current, maximum };
        Ok(rustix::process::setrlimit(
            rustix::process::Resource::Nofile,
            limit,
        )?)
    };
    // SAFETY: it makes a system call and nothing else.
    unsafe { command.pre_exec(set) };
    command
}

fn descriptors() {
    on_own_host(|| {
        for limit in [32, 64] {
            let output = run(limited("ready", limit, limit).args(["-p", "8080:80"]));
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{limit}: {error}");
            let told = format!("this process may have {limit} files and sockets open, and ");
            assert!(
                error.contains(&told) && error.contains("ulimit -n"),
                "{error}"
            );
        }
        for (soft, hard, fewer) in [(64, 256, true), (256, 256, true), (64, 1024, false)] {
            let command = limited("net_services", soft, hard);
            let (mut vm, _output, errors) =
                serving_with(command, &["-p", "8080:80", "-p", "53:53/udp"]);
            if fewer {
                expect(&errors, "clients at a time instead of 384");
            }
            // All seats are taken, and nobody is kept out.
            let _idle = connect_as(1234, 300);
            for _ in 0..10 {
                let answer = curl_of_many("http://127.0.0.1:8080/");
                assert_eq!(answer, "10.107.0.1\n", "{hard}");
            }
            let open = std::fs::read_dir(format!("/proc/{}/fd", vm.id()))
                .unwrap()
                .count();
            assert!(open as u64 + 20 < hard, "{open} of {hard}");
            let refused = "connections are not accepted now";
            assert!(
                !errors.try_iter().any(|line| line.contains(refused)),
                "{hard}"
            );
            // The next one gets its network: who is killed has it for a while longer.
            let process = rustix::process::Pid::from_child(&vm);
            rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
            vm.wait().unwrap();
        }
    });
}

fn refused() {
    on_own_host(|| {
        let (vm, _output, _errors) = serving(&["-p", "8080:80", "-p", "[::1]:8082:80"]);
        let listener = std::net::TcpListener::bind("127.0.0.1:8085").unwrap();
        let other = format!("the VM of process {} has that port", vm.id());
        let own = format!("process {} (", std::process::id());
        for (port, expected) in [
            ("8080:80", other.as_str()),
            ("127.0.0.1:8080:80", &other),
            ("[::1]:8080:80", &other),
            ("8082:80", &other),
            ("8085:80", &own),
            ("192.0.2.1:80:80", "it has 127.0.0.1, 10.107.0.1, ::1"),
            (
                "[2001:db8::1]:80:80",
                "this host does not have the address 2001:db8::1",
            ),
            ("host.example:80:80", "other names are not looked up"),
            ("80-82:80-81", "not equally long"),
        ] {
            let output = run(kvmlet("power_off").args(["-p", port]));
            let error = text(&output.stderr);
            assert!(
                !output.status.success() && error.contains(expected),
                "{port}: {error}"
            );
        }
        drop(listener);
        let output = run(kvmlet("power_off").args(["--dns", "::1"]));
        assert!(
            text(&output.stderr).contains("help: add --net"),
            "{}",
            text(&output.stderr)
        );
    });
}

/// A real name server, that knows one name.
pub fn name_server(at: &str, answer: &str) -> Running {
    let mut command = Command::new("dnsmasq");
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--user=root",
        ])
        .args([
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--local-ttl=1",
        ])
        .arg(format!("--listen-address={at}"))
        .arg(format!("--address=/name.test/{answer}"))
        .stdin(Stdio::null());
    let server = Running::spawn(&mut command);
    eventually("the name server answers", || {
        let arguments = [
            &format!("@{at}"),
            "+short",
            "+tries=1",
            "+time=1",
            "name.test",
        ];
        text(&run(Command::new("dig").args(arguments)).stdout).trim() == answer
    });
    server
}

fn names() {
    on_own_host(|| {
        let first = name_server("::1", "198.51.100.1");
        let _second = name_server("127.0.0.53", "198.51.100.2");
        let (_vm, output, errors) = serving(&["--net"]);
        expect(&output, "name.test=198.51.100.1");
        std::fs::write("/run/resolv.conf", "nameserver 127.0.0.53\n").unwrap();
        expect(&output, "name.test=198.51.100.2");
        // Two VMs, one with a name server of its own, which goes away.
        let (_other, other, _errors) = serving(&["--net", "--dns", "::1"]);
        expect(&other, "name.test=198.51.100.1");
        drop(first);
        expect(&other, "name.test=failed");
        std::fs::write("/run/resolv.conf", "\n").unwrap();
        expect(&output, "name.test=failed");
        assert!(expect(&errors, "name server").contains("/etc/resolv.conf"));
    });
}
