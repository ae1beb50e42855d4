//! The process that answers, with a guest at the other end of its socket.

use super::super::counted::Slate;
use super::super::process::{Lane, serve};
use super::super::service::tell;
use super::*;
use kvmlet_control::Channel;
use kvmlet_sys::frames::FrameSocket;
use kvmlet_sys::wait::{self, Slot, Until};
use serde_json::json;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

/// The process, in a thread, with the end of its channel and that of a guest.
fn process() -> (JoinHandle<Result<(), String>>, Channel, OwnedFd, Slate) {
    let (near, far) = FrameSocket::pair().unwrap();
    let (channel, theirs) = Channel::pair().unwrap();
    let slate = Slate::new().unwrap();
    let ours = Slate::from(slate.as_fd().try_clone_to_owned().unwrap());
    let process = std::thread::spawn(move || {
        let mut lanes = [Lane::new(near.into(), Stack::new(ADDRESS, 7))];
        let mut answers = Answers::new(Version::V1, false, [1; 32]);
        serve(&theirs, &slate, &mut lanes, &mut answers).map_err(|error| error.to_string())
    });
    (process, channel, far.into(), ours)
}

#[test]
fn a_guest_that_reads_late_is_told_all_the_same() {
    let (process, channel, far, slate) = process();
    let comes = |slot, patience| wait::one(slot, Until::after(patience)).unwrap();
    let mut asked = 0;
    // Until it waits for room itself, and takes no more.
    while comes(Slot::writable(far.as_fd()), Duration::from_secs(1)) {
        let question = question(ADDRESS);
        assert_eq!(rustix::io::write(&far, &question), Ok(question.len()));
        asked += 1;
        assert!(asked < 1_000_000, "it takes questions without end");
    }
    let mut buffer = [0; 2048];
    for told in 0..asked {
        let more = comes(Slot::readable(far.as_fd()), Duration::from_secs(60));
        assert!(more, "{told} of {asked}");
        rustix::io::read(&far, &mut buffer).unwrap();
    }
    drop(channel);
    assert_eq!(process.join().unwrap(), Ok(()));
    // Of ARP, and of nothing else.
    let counted = slate.read();
    assert_eq!((counted.rx_accepted, counted.tx_frames), (asked, asked));
    assert_eq!((counted.rx_count, counted.connections_created), (0, 0));
    assert_eq!(counted.tx_bytes, 42 * asked);
}

#[test]
fn what_was_told_before_a_guest_asks_it_finds() {
    let (process, channel, far, slate) = process();
    let mut guest = Guest::new();
    let begun = std::time::Instant::now();
    let connection = guest.connect();
    let mut buffer = vec![0; 70_000];
    for count in 0..20 {
        tell(&channel, &json!({ "name": format!("vm-{count}") })).unwrap();
        let mut heard = String::new();
        let mut is_said = false;
        while !heard.ends_with(&format!("vm-{count}")) {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{count}: {heard}"
            );
            guest.poll(begun.elapsed());
            let socket = guest.socket(connection);
            if !is_said && socket.can_send() {
                is_said = socket.send_slice(NAME.as_bytes()).is_ok();
            }
            if socket.can_recv() {
                let bytes = socket.recv(|bytes| (bytes.len(), bytes.to_vec()));
                heard += &String::from_utf8(bytes.unwrap()).unwrap();
                continue;
            }
            guest.poll(begun.elapsed());
            for frame in guest.wire.going.drain(..) {
                assert_eq!(rustix::io::write(&far, &frame), Ok(frame.len()));
            }
            let until = Until::after(Duration::from_millis(20));
            if wait::one(Slot::readable(far.as_fd()), until).unwrap() {
                let bytes = rustix::io::read(&far, &mut buffer).unwrap();
                guest.wire.coming.push_back(buffer[..bytes].to_vec());
            }
        }
        assert_eq!(heard.matches("HTTP/1.1 200").count(), 1, "{heard}");
    }
    // A VM that has ended is no reason to end: whoever has started it says so.
    let counted = slate.read();
    assert_eq!(counted.connections_created, 1);
    assert!(
        counted.rx_count > 20 && counted.tx_bytes > 1000,
        "{counted:?}"
    );
    drop(far);
    tell(&channel, &json!({})).unwrap();
    drop(channel);
    assert_eq!(process.join().unwrap(), Ok(()));
}
