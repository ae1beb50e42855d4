//! VMs that go on from a snapshot whose memory another program has, or with pages of another kind.

use crate::cli::{kill, run, text, vm_process, vm_process_if_any};
use crate::harness::pager::{Oddities, Pager};
use crate::harness::{Test, deadline, has_ended, patience::eventually};
use crate::snapshot::{Worker, place};
use kvmlet_control::{Connection, Order};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

pub const TESTS: &[Test] = &[
    ("memory_comes_from_another_program_page_by_page", by_page),
    ("a_vm_ends_with_who_has_its_memory_and_says_so", gone),
    ("who_waits_for_a_page_that_never_comes_can_be_ended", never),
    ("who_has_no_memory_to_give_is_told_of", absent),
    ("restored_memory_is_in_huge_pages_if_asked_for", huge),
];

const SMALL: &[&str] = &["-m", "32M"];
const PAGES: u64 = 32 << 20 >> 12;
const MEMORY: u64 = 16 << 20;

/// A VM is saved, in a file of which only the beginning is left at `state`.
fn saved(file: &dyn Fn(&str) -> std::path::PathBuf) -> u64 {
    let mut vm = Worker::boot("saved", "", SMALL, &file("a"));
    let last = vm.round().0;
    vm.save(&file("memory"));
    vm.end();
    let mut head = [0; 16];
    let memory = File::open(file("memory")).unwrap();
    memory.read_exact_at(&mut head, 0).unwrap();
    let length = u32::from_le_bytes(head[12..].try_into().unwrap());
    let mut state = vec![0; length as usize];
    memory.read_exact_at(&mut state, 0).unwrap();
    std::fs::write(file("state"), state).unwrap();
    last
}

fn restore(file: &dyn Fn(&str) -> std::path::PathBuf, pager: &Path, more: &[&str]) -> Worker {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    command.arg("restore").arg("--memory-from").arg(pager);
    command.args(more).arg(file("state")).stderr(Stdio::piped());
    Worker::spawn(&mut command, &file("vm"))
}

fn memory_of(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes.drain(..MEMORY as usize);
    bytes.truncate((PAGES << 12) as usize);
    bytes
}

/// In the jail and without, from one program that has the memory of all: nothing but what is touched comes, and all of it where it
/// is read, as it was.
fn by_page() {
    let (_place, file) = place();
    let last = saved(&file);
    let pager = Pager::start(&file("pager"), &file("memory"), Oddities::default());
    for arguments in [&[] as &[&str], &["--no-jail"]] {
        let before = pager.answered();
        let mut vm = restore(&file, pager.socket(), arguments);
        assert!(vm.round().0 > last);
        assert!(vm.round().0 > last);
        let touched = pager.answered() - before;
        assert!((1..PAGES / 10).contains(&touched), "{touched}");
        // What it was saved from is not asked again for what has come, and gives the rest.
        vm.save(&file("again"));
        assert_eq!(pager.answered() - before, PAGES);
        vm.round();
        vm.end();
        let (was, is) = (memory_of(&file("memory")), memory_of(&file("again")));
        let pages = was.chunks(4096).zip(is.chunks(4096));
        let changed = pages.filter(|(was, is)| was != is).count() as u64;
        assert!((1..=touched).contains(&changed), "{changed} of {touched}");
    }
    // That one is whole.
    let mut vm = Worker::restore(&file("again"), &["--verify"], &file("vm"));
    assert!(vm.round().0 > last);
    vm.end();
}

/// Whether it keeps its connection, waits for no page just then, or does.
fn gone() {
    let (_place, file) = place();
    saved(&file);
    let hangs = Oddities {
        most: Some(3),
        ..Oddities::default()
    };
    let closes = Oddities {
        closes: true,
        ..Oddities::default()
    };
    for (number, oddities) in [Oddities::default(), closes, hangs].into_iter().enumerate() {
        let socket = file(&format!("pager{number}"));
        let pager = Pager::start(&socket, &file("memory"), oddities);
        let mut vm = restore(&file, &socket, &[]);
        match oddities.most {
            Some(most) => pager.expect(most),
            // That it closes its connection is no reason to end.
            None => assert!(vm.round().0 < vm.round().0),
        }
        drop(pager);
        let (code, told) = vm.failure();
        assert_eq!(code, Some(125), "{told}");
        let socket = socket.to_str().unwrap();
        assert!(
            told.contains(socket) && told.contains("has ended"),
            "{told}"
        );
    }
}

/// By whoever may end a VM: who has its memory is there, and says nothing.
fn never() {
    let (_place, file) = place();
    saved(&file);
    for (number, most) in [3, 0, 3, 3, 3].into_iter().enumerate() {
        let oddities = Oddities {
            most: Some(most),
            ..Oddities::default()
        };
        let socket = file(&format!("pager{number}"));
        let pager = Pager::start(&socket, &file("memory"), oddities);
        let vm = restore(&file, &socket, &[]);
        let process = || vm_process_if_any(vm.child());
        eventually("a thread waits", || {
            process().is_some_and(has_a_thread_that_waits)
        });
        pager.expect(most);
        let (supervisor, process) = (vm.child().id(), process().unwrap());
        let began = Instant::now();
        let mut saving = None;
        match number {
            0 => vm.ask(Order::Signal { signal: 9 }),
            // It has not come to listen.
            1 => kill(supervisor as i32, libc::SIGTERM),
            2 => kill(process, libc::SIGKILL),
            // It is being saved, and hears nothing while it waits for what it is to tell.
            3 => {
                let mut control = Connection::to(&file("vm")).unwrap();
                saving = Some(control.save(deadline()).unwrap());
                let patience_ms = Some(3_600_000);
                vm.ask(Order::Stop { patience_ms });
            }
            _ => kill(supervisor as i32, libc::SIGKILL),
        }
        eventually("its process ends", || has_ended(process as u32));
        eventually("its supervisor ends", || has_ended(supervisor));
        println!("{number}: ended after {:?}", began.elapsed());
        drop(saving);
    }
}

fn has_a_thread_that_waits(process: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"));
    let waits = |path: &Path| {
        let place = std::fs::read_to_string(path.join("wchan"));
        place.is_ok_and(|place| place.contains("userfault"))
    };
    threads.is_ok_and(|mut all| all.any(|it| it.is_ok_and(|it| waits(&it.path()))))
}

/// A path with nothing, one with a program that does not listen, one that hangs up: each is named, and nothing is left.
fn absent() {
    let (_place, file) = place();
    saved(&file);
    let failed = |socket: &Path, state: &Path, part: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
        command.arg("restore").arg("--memory-from").arg(socket);
        let output = run(command.arg(state));
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{told}");
        assert!(told.contains(socket.to_str().unwrap()), "{told}");
        assert!(told.contains(part) && told.contains("help: "), "{told}");
    };
    let found = "no program that has guest memory is found";
    failed(&file("nowhere"), &file("state"), found);
    failed(&file("memory"), &file("state"), found);
    // One that has no room for another is not waited for.
    let full = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let (full, address) = (full.unwrap(), SocketAddrUnix::new(file("full")).unwrap());
    bind(&full, &address).unwrap();
    listen(&full, 0).unwrap();
    let _waits = UnixStream::connect(file("full")).unwrap();
    failed(&file("full"), &file("state"), found);
    let refuses = Oddities {
        refuses: true,
        ..Oddities::default()
    };
    let pager = Pager::start(&file("pager"), &file("memory"), refuses);
    failed(pager.socket(), &file("state"), "");
    // What is at the beginning of the file is looked at as ever.
    let state = std::fs::read(file("state")).unwrap();
    std::fs::write(file("cut"), &state[..state.len() - 1]).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    command
        .args(["restore", "--memory-from"])
        .arg(pager.socket());
    let told = text(&run(command.arg(file("cut"))).stderr);
    assert!(told.contains("cut short"), "{told}");
}

/// A file's pages are small. Large ones are copied to at the start; those of the pool are there, or are told to be missing.
fn huge() {
    let (_place, file) = place();
    let last = saved(&file);
    let huge = |pages: &str| ["--huge-pages".to_owned(), pages.to_owned()];
    let backed = |vm: &Worker, key: &str| {
        let maps = std::fs::read_to_string(format!("/proc/{}/smaps", vm_process(vm.child())));
        let maps = maps.unwrap();
        let lines = maps.lines().filter_map(|line| line.strip_prefix(key));
        let sizes = lines.filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        sizes.sum::<u64>()
    };
    let transparent = huge("transparent");
    let transparent = transparent.each_ref().map(String::as_str);
    let mut vm = Worker::restore(&file("memory"), &transparent, &file("vm"));
    assert!(vm.round().0 > last);
    let thp = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    match thp.is_ok_and(|modes| !modes.contains("[never]")) {
        true => assert!(backed(&vm, "AnonHugePages:") >= 2048),
        false => println!("SKIPPED: this host has no transparent huge pages"),
    }
    vm.save(&file("again"));
    vm.end();
    let reserved = huge("reserved");
    let reserved = reserved.each_ref().map(String::as_str);
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let free = free.map_or(0, |pages| pages.trim().parse().unwrap_or(0));
    if free < PAGES >> 9 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
        let output = run(command.arg("restore").args(reserved).arg(file("again")));
        let told = text(&output.stderr);
        assert!(
            told.contains("reserved huge pages") && told.contains("nr_hugepages"),
            "{told}"
        );
        return;
    }
    let mut vm = Worker::restore(&file("again"), &reserved, &file("vm"));
    assert!(vm.round().0 > last);
    // All are its own, of which those are there that have something in them.
    assert!((2048..=PAGES << 2).contains(&backed(&vm, "Private_Hugetlb:")));
    vm.end();
    let pager = Pager::start(&file("pager"), &file("memory"), Oddities::default());
    let mut vm = restore(&file, pager.socket(), &reserved);
    assert!(vm.round().0 > last);
    assert!((1..=PAGES >> 9).contains(&pager.answered()));
    vm.end();
}
