//! Programs, and a VM, that speak with the service.

use super::super::channel::{VmEnd, pair};
use super::*;
use kvmlet_sys::wait::Until;
use kvmlet_vmm::devices::virtio::vsock::{FromHost, HostSide};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use tempfile::TempDir;

/// A service that runs, and the VM that it is for.
struct Bench {
    place: TempDir,
    vm: Option<VmEnd>,
    stop: Event,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Bench {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let file = SocketFile::make(&place.path().join("v")).unwrap();
        let (host, vm) = pair().unwrap();
        let stop = Event::new().unwrap();
        let stopped = stop.try_clone().unwrap();
        let thread = std::thread::spawn(move || Service::new(&file, host, stopped).run());
        Self {
            place,
            vm: Some(vm),
            stop,
            thread: Some(thread),
        }
    }

    fn path(&self) -> PathBuf {
        self.place.path().join("v")
    }

    fn call(&self, line: &str) -> UnixStream {
        let mut program = UnixStream::connect(self.path()).unwrap();
        program
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        program.write_all(line.as_bytes()).unwrap();
        program
    }

    fn hear(&self) -> FromHost {
        let vm = self.vm.as_ref().unwrap();
        loop {
            let patience = Until::after(Duration::from_secs(20));
            let is_said = wait::one(Slot::readable(vm.as_fd()), patience).unwrap();
            assert!(is_said, "nothing is said");
            match vm.receive() {
                Err(error) if is_temporary(&error) => {}
                heard => return heard.unwrap(),
            }
        }
    }

    /// A stream for a port, by which the VM hears that text.
    fn expect_connect(&self, port: u32, text: &str) {
        let FromHost::Connect {
            port: wanted,
            stream,
        } = self.hear()
        else {
            panic!("something else")
        };
        assert_eq!(wanted, port);
        let mut stream = UnixStream::from(stream);
        stream.set_nonblocking(false).unwrap();
        let mut bytes = vec![0; text.len()];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, text.as_bytes());
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.signal();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

#[test]
fn lines_are_those_of_firecracker() {
    for (line, port) in [
        ("CONNECT 52\n", Some(52)),
        ("connect 0\n", Some(0)),
        ("Connect \t4294967295 \r\n", Some(u32::MAX)),
        ("CONNECT 4294967296\n", None),
        ("CONNECT +1\n", None),
        ("CONNECT -1\n", None),
        ("CONNECT\n", None),
        ("CONNECT 1 2\n", None),
        ("CONNECT1\n", None),
        ("GET / HTTP/1.1\n", None),
        ("\n", None),
        ("CONNECT \u{666}\n", None),
    ] {
        assert_eq!(port_of(line.as_bytes()), port, "{line:?}");
    }
    assert_eq!(port_of(b"CONNECT \xff\n"), None);
}

#[test]
fn programs_are_handed_on_with_what_they_have_sent() {
    let bench = Bench::new();
    let _all = bench.call("CONNECT 80\nGET /");
    bench.expect_connect(80, "GET /");
    // Byte by byte, and others meanwhile.
    let mut slow = bench.call("C");
    for byte in "ONNECT 81".bytes() {
        let _quick = bench.call("CONNECT 82\ny");
        bench.expect_connect(82, "y");
        slow.write_all(&[byte]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    slow.write_all(b"\nx").unwrap();
    bench.expect_connect(81, "x");
}

#[test]
fn who_speaks_nonsense_is_closed() {
    let bench = Bench::new();
    for line in [
        "HELLO\n",
        "CONNECT x\n",
        &"C".repeat(LONGEST_LINE),
        &"1".repeat(500),
    ] {
        let mut program = bench.call(line);
        let mut said = Vec::new();
        // Closed before all was read is an error, and an end all the same.
        let _ = program.read_to_end(&mut said);
        assert_eq!(said.len(), 0);
    }
    drop(bench.call("CONN"));
    let _program = bench.call("CONNECT 5\n.");
    bench.expect_connect(5, ".");
}

/// Programs that say nothing keep nobody out for long: others wait a moment, and are not lost.
#[test]
fn those_who_say_nothing_are_bounded() {
    let bench = Bench::new();
    let since = Instant::now();
    let mut silent: Vec<_> = (0..MOST_CALLERS + 50).map(|_| bench.call("")).collect();
    let _late = bench.call("CONNECT 7\n!");
    bench.expect_connect(7, "!");
    assert!((GRACE..PATIENCE).contains(&since.elapsed()));
    // The first ones have made room, and the last are there still.
    let mut last = silent.pop().unwrap();
    last.write_all(b"CONNECT 8\n?").unwrap();
    bench.expect_connect(8, "?");
    let mut said = Vec::new();
    assert_eq!(silent[0].read_to_end(&mut said).unwrap(), 0);
}

#[test]
fn a_guest_is_connected_to_what_listens_beside() {
    let bench = Bench::new();
    let listener = UnixListener::bind(bench.place.path().join("v_1024")).unwrap();
    let vm = bench.vm.as_ref().unwrap();
    // More than the channel takes at a time, some of them in vain.
    for id in 0..600 {
        let port = if id % 2 == 0 { 1024 } else { 1025 };
        while let Err(error) = vm.ask(Question { id, port }) {
            assert!(is_temporary(&error), "{error}");
            std::thread::yield_now();
        }
        if id % 50 == 49 {
            for id in id - 49..=id {
                match (id % 2, bench.hear()) {
                    (
                        0,
                        FromHost::Connected {
                            id: answered,
                            stream,
                        },
                    ) => {
                        assert_eq!(answered, id);
                        let (mut program, _) = listener.accept().unwrap();
                        program.write_all(b"yes").unwrap();
                        let mut said = [0; 3];
                        rustix::io::read(&stream, &mut said).unwrap();
                        assert_eq!(&said, b"yes");
                    }
                    (1, FromHost::Refused { id: answered }) => assert_eq!(answered, id),
                    (_, other) => panic!("{id}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn the_end_of_the_vm_is_the_end() {
    let mut bench = Bench::new();
    let mut program = bench.call("CONN");
    bench.vm = None;
    let _ = program.read_to_end(&mut Vec::new());
    let deadline = Instant::now() + Duration::from_secs(20);
    while bench.path().exists() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}
