//! Networks of ordinary users, through passt: no right, no tap, and what there is ends with the VM.

use crate::cli::{Running, kill, run, text, vm_process_if_any};
use crate::harness::{Test, deadline, patience::eventually, program};
use crate::hostile::scene::make_device;
use crate::ports::{curl, enter_own_host, expect, lines, name_server};
use std::fs::{read_dir, read_link, read_to_string};
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

pub const TESTS: &[Test] = &[
    ("an_ordinary_user_publishes_ports_through_passt", clients),
    ("a_relay_has_no_rights_and_opens_nothing", rights),
    ("passt_and_its_relay_end_however_one_of_them_does", ends),
    ("a_vm_goes_on_without_passt", without),
    ("what_carries_an_interface_can_be_insisted_on", insisted),
];

const USER: u32 = 23_008;

/// A host with a default route, on which anybody may open /dev/kvm, for the thread of this test.
fn on_own_host(body: fn()) {
    let thread = std::thread::spawn(move || {
        enter_own_host();
        make_device(Path::new("/run/kvm"), (10, 232)).unwrap();
        rustix::mount::mount_bind("/run/kvm", "/dev/kvm").unwrap();
        let uplink = "ip tuntap add dev uplink mode tap; ip addr add 192.0.2.2/24 dev uplink; ip link set uplink up; \
                      ip route add default via 192.0.2.1";
        let made = run(Command::new("sh").args(["-ec", uplink]));
        assert!(made.status.success(), "{}", text(&made.stderr));
        body();
    });
    thread.join().unwrap();
}

/// kvmlet as a user who has no right of root's.
fn as_user() -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={USER}"), format!("--regid={USER}")])
        .args([
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            "--",
        ])
        .arg(env!("CARGO_BIN_EXE_kvmlet"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn boot() -> Command {
    let mut command = as_user();
    command
        .args(["boot", "--kernel"])
        .arg(program("net_services"))
        .args(["--cmdline", "mmio=0xd0002000"]);
    command
}

/// Starts it with a descriptor that it was not meant to have: of its kernel's file.
fn with_stray(command: &Command) -> Running {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec 3<\"$0\" \"$@\""])
        .arg(program("net_services"))
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Running::spawn(&mut shell)
}

/// The processes beside a VM's: passt, and the relay.
fn beside(vm: &Running) -> [i32; 2] {
    let supervisor = vm.id();
    let children = format!("/proc/{supervisor}/task/{supervisor}/children");
    let mut found = [None; 2];
    eventually("passt and its relay are there", || {
        let children = read_to_string(&children).unwrap();
        for child in children.split_whitespace() {
            let name = read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
            for (place, known) in ["passt", "net-relay"].into_iter().enumerate() {
                if name.starts_with(known) {
                    found[place] = child.parse().ok();
                }
            }
        }
        found.iter().all(Option::is_some)
    });
    found.map(Option::unwrap)
}

fn has_ended(process: i32) -> bool {
    let status = read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.is_empty() || status.contains("State:\tZ")
}

/// Nobody has this port, so passt is gone as well as everybody whom it has forked.
fn is_free(port: u16) -> bool {
    TcpListener::bind(("0.0.0.0", port)).is_ok()
}

fn clients() {
    on_own_host(|| {
        let _server = name_server("127.0.0.1", "198.51.100.1");
        std::fs::write("/run/resolv.conf", "nameserver ::2\nnameserver 127.0.0.1\n").unwrap();
        let ports = [
            "8080:80",
            "localhost:8081:80",
            "192.0.2.2:8082:80",
            "127.0.0.1::80",
            "5353:53/udp",
        ];
        let ports = ports.iter().flat_map(|port| ["-p", port]);
        let mut vm = Running::spawn(boot().args(ports));
        let output = lines(vm.stdout.take().unwrap());
        let errors = lines(vm.stderr.take().unwrap());
        let chosen = expect(&errors, "127.0.0.1:");
        let chosen = chosen.split("127.0.0.1:").nth(1).unwrap();
        let chosen = chosen.split(':').next().unwrap();
        expect(&output, "name.test=198.51.100.1");
        for address in [
            "127.0.0.1:8080",
            "127.0.0.1:8081",
            &format!("127.0.0.1:{chosen}"),
        ] {
            assert_eq!(
                curl(&format!("http://{address}/")),
                "10.107.255.253\n",
                "{address}"
            );
        }
        for address in ["192.0.2.2:8080", "192.0.2.2:8082"] {
            assert_eq!(
                curl(&format!("http://{address}/")),
                "192.0.2.2\n",
                "{address}"
            );
        }
        for address in ["192.0.2.2:8081", "127.0.0.1:8082"] {
            let failed = curl(&format!("http://{address}/"));
            assert!(failed.starts_with("curl: "), "{address}: {failed}");
        }
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(deadline())).unwrap();
        socket.connect("127.0.0.1:5353").unwrap();
        socket.send(b"who am I?").unwrap();
        let mut answer = [0; 100];
        let bytes = socket.recv(&mut answer).unwrap();
        assert_eq!(text(&answer[..bytes]), "10.107.255.253");
        // A second VM has the same address, and a network of its own.
        let mut other = Running::spawn(boot().args(["-p", "8090:80"]));
        expect(&lines(other.stdout.take().unwrap()), "serving");
        for port in [8080, 8090] {
            assert_eq!(
                curl(&format!("http://127.0.0.1:{port}/")),
                "10.107.255.253\n"
            );
        }
        let mut guest = TcpStream::connect("127.0.0.1:8080").unwrap();
        guest.write_all(b"quit").unwrap();
        assert_eq!(vm.wait().unwrap().code(), Some(0));
        assert!(is_free(8080) && !is_free(8090));
    });
}

fn rights() {
    on_own_host(|| {
        for as_root in [false, true] {
            let mut command = boot();
            if as_root {
                // The same, but for the user.
                let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
                let own = arguments.iter().position(|word| word == "--").unwrap() + 1;
                command = Command::new(&arguments[own]);
                command.args(&arguments[own + 1..]);
                command
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
            }
            let mut vm = with_stray(command.args(["--net", "passt", "-p", "8080:80"]));
            expect(&lines(vm.stdout.take().unwrap()), "serving");
            let [passt, relay] = beside(&vm);
            for process in [passt, relay] {
                let descriptors = read_dir(format!("/proc/{process}/fd")).unwrap();
                let mut targets = descriptors.flatten().flat_map(|fd| read_link(fd.path()));
                assert!(!targets.any(|target| target == program("net_services")));
                let status = || read_to_string(format!("/proc/{process}/status")).unwrap();
                eventually("rights are laid down", || {
                    status().contains("NoNewPrivs:\t1") && status().contains("Seccomp:\t2")
                });
                let status = status();
                assert!(status.contains("CapPrm:\t0000000000000000"), "{status}");
                let users = status
                    .lines()
                    .find(|line| line.starts_with("Uid:"))
                    .unwrap();
                assert!(!users.split_whitespace().any(|user| user == "0"), "{users}");
            }
            // Three sockets, and what its supervisor ends it by.
            let descriptors = read_dir(format!("/proc/{relay}/fd")).unwrap().flatten();
            for descriptor in descriptors {
                let target = read_link(descriptor.path()).unwrap();
                let target = target.to_str().unwrap();
                let kinds = ["socket:", "pipe:", "anon_inode:[pidfd]"];
                assert!(
                    kinds.iter().any(|kind| target.starts_with(kind)),
                    "{target}"
                );
            }
            let process = vm_process_if_any(&vm).unwrap();
            let command = read_to_string(format!("/proc/{process}/comm")).unwrap();
            assert_eq!(command.trim(), "kvmlet", "it is the first");
            kill(vm.id() as i32, libc::SIGTERM);
            vm.wait().unwrap();
        }
    });
}

fn ends() {
    on_own_host(|| {
        for who in ["supervisor", "VM", "nobody"] {
            let mut vm = Running::spawn(boot().args(["-p", "8080:80"]));
            expect(&lines(vm.stdout.take().unwrap()), "serving");
            let [passt, relay] = beside(&vm);
            let process = vm_process_if_any(&vm).unwrap();
            let (pid, signal) = match who {
                "supervisor" => (vm.id() as i32, libc::SIGKILL),
                "VM" => (process, libc::SIGKILL),
                _ => (vm.id() as i32, libc::SIGTERM),
            };
            kill(pid, signal);
            vm.wait().unwrap();
            if who != "supervisor" {
                assert!(
                    has_ended(passt) && has_ended(relay),
                    "{who}: they are waited for"
                );
            }
            eventually("all have ended", || {
                [passt, relay, process].into_iter().all(has_ended) && is_free(8080)
            });
        }
        // Neither has left a socket or another file.
        for directory in ["/tmp", "/run"] {
            let entries = read_dir(directory).unwrap().flatten();
            let mut names = entries.map(|entry| entry.file_name().into_string().unwrap());
            assert!(!names.any(|name| name.starts_with("passt_")), "{directory}");
        }
    });
}

fn without() {
    on_own_host(|| {
        for (place, said) in [
            "the guest has no network any more: passt was killed by signal 9",
            "the guest's frames go nowhere any more: the process for them was killed by signal 9",
        ]
        .into_iter()
        .enumerate()
        {
            let mut vm = Running::spawn(boot().args(["-p", "8080:80"]));
            let errors = lines(vm.stderr.take().unwrap());
            expect(&lines(vm.stdout.take().unwrap()), "serving");
            let both = beside(&vm);
            kill(both[place], libc::SIGKILL);
            expect(&errors, said);
            eventually("the other has ended", || {
                has_ended(both[0]) && is_free(8080)
            });
            assert!(vm.try_wait().unwrap().is_none());
            kill(vm.id() as i32, libc::SIGTERM);
            assert_eq!(vm.wait().unwrap().code(), Some(143));
            assert!(both.into_iter().all(has_ended));
        }
    });
}

fn insisted() {
    on_own_host(|| {
        let refused = |mut command: Command, arguments: &[&str]| {
            let output = run(command.args(arguments));
            assert_eq!(output.status.code(), Some(125));
            text(&output.stderr)
        };
        let message = refused(boot(), &["--net", "tap"]);
        assert!(
            message.contains("CAP_NET_ADMIN") && message.contains("apt-get install passt"),
            "{message}"
        );
        for arguments in [&["--net", "passt"][..], &["--net"]] {
            let mut bare = Command::new("/usr/bin/setpriv");
            bare.args(boot().get_args()).env("PATH", "/nowhere");
            let message = refused(bare, arguments);
            assert!(
                message.contains("apt-get install passt"),
                "{arguments:?}: {message}"
            );
        }
        let message = refused(boot(), &["--net", "passt", "-p", "80:80"]);
        assert!(
            message.contains("cannot publish") && message.contains("below 1024"),
            "{message}"
        );
        let doctor = |mut command: Command| text(&run(command.arg("doctor")).stdout);
        let told = doctor(as_user());
        assert!(
            told.contains("guests' interfaces are carried by /"),
            "{told}"
        );
        let told = doctor(Command::new(env!("CARGO_BIN_EXE_kvmlet")));
        assert!(told.contains("guests' interfaces are taps"), "{told}");
        let removed = run(Command::new("ip").args(["route", "del", "default"]));
        assert!(removed.status.success());
        let message = refused(boot(), &["--net"]);
        assert!(message.contains("default route"), "{message}");
        assert!(doctor(as_user()).contains("no default route"));
    });
}
