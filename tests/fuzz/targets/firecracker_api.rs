//! Clients of Firecracker's API that send anything, in pieces, read nothing, and go: each whole request has one answer, in its
//! order, little is held for those who do not read, and whoever keeps to the rules is served.
#![no_main]

mod memory;
mod peer;

use kvmlet_serve::http::{Answer, Manner, NOTHING_COMES, Peers, Server};
use libfuzzer_sys::fuzz_target;
use peer::{Address, Peer};

/// Programs that try to be served at once: more than are.
const MOST: usize = 24;
/// A body that is longer is refused.
const BODY: usize = 4 << 10;
/// No more is held for all of them together, in bytes.
const MEMORY: usize = 4 << 20;

/// Paths that there are, and some that there are not.
const PATHS: [&str; 24] = [
    "/",
    "/version",
    "/vm",
    "/vm/config",
    "/machine-config",
    "/boot-source",
    "/drives/a",
    "/drives/b_2",
    "/network-interfaces/a",
    "/vsock",
    "/balloon",
    "/balloon/statistics",
    "/balloon/hinting/start",
    "/entropy",
    "/serial",
    "/logger",
    "/metrics",
    "/actions",
    "/snapshot/create",
    "/snapshot/load",
    "/mmds/config",
    "/cpu-config",
    "//drives/a?b",
    "/nowhere/a/b",
];
/// Pieces that bodies are put together from.
const PIECES: [&str; 34] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "1",
    "-1",
    "1e99",
    "18446744073709551616",
    "true",
    "null",
    "\"a\"",
    "\"\\u0000\"",
    "\"id\"",
    "\"drive_id\":\"a\",",
    "\"iface_id\":\"a\",",
    "\"path_on_host\":\"a\",",
    "\"is_root_device\":true",
    "\"host_dev_name\":\"a\"",
    "\"guest_mac\":\"06:00:00:00:00:01\",",
    "\"rate_limiter\":",
    "\"bandwidth\":",
    "{\"size\":1,\"refill_time\":0}",
    "\"action_type\":\"InstanceStart\"",
    "\"state\":\"Paused\"",
    "\"vcpu_count\":",
    "\"mem_size_mib\":",
    "\"snapshot_path\":\"a\",",
    "\"mem_backend\":{\"backend_type\":\"File\",\"backend_path\":\"a\"}",
    "\"amount_mib\":1,\"deflate_on_oom\":false",
    "\"msr_modifiers\":[{\"addr\":\"0x1a0\",\"bitmap\":\"0b1x\"}]",
    "\"cpuid_modifiers\":[{\"leaf\":\"0x1\",\"subleaf\":\"0b0\",\"flags\":0,\"modifiers\":[{\"register\":\"ecx\",\"bitmap\":\"1_0x\"}]}]",
    "[[[[[[[[[[[[[[[[",
];

fn turn(server: &mut Server) {
    server.turn();
    // As many as come of what was sent by then: an answer can have the next one be read.
    while let Some((client, request)) = server.next_request() {
        assert!(request.body.len() <= BODY);
        let answer = match kvmlet_serve::understand(&request) {
            Ok(()) => Answer::done(),
            Err(why) => {
                assert!(why.starts_with("{\"fault_message\":"), "{why}");
                Answer::new(400, Some(why))
            }
        };
        server.answer(client, &answer);
    }
    memory::expect_at_most(MEMORY);
}

/// A request that is one, as far as its head goes.
fn request(kind: u8, path: u8, words: &[u8]) -> Vec<u8> {
    let method = ["GET", "PUT", "PATCH", "DELETE"][usize::from(kind) % 4];
    let path = PATHS[usize::from(path) % PATHS.len()];
    let body: String = words
        .iter()
        .map(|word| PIECES[usize::from(*word) % PIECES.len()])
        .collect();
    let field = match kind >> 2 {
        0 => "Connection: close\r\n",
        1 => "Expect: 100-continue\r\n",
        2 => "Transfer-Encoding: chunked\r\n",
        _ => "",
    };
    let version = kind >> 7;
    let length = body.len();
    format!("{method} {path} HTTP/1.{version}\r\n{field}Content-Length: {length}\r\n\r\n{body}")
        .into()
}

fuzz_target!(|input: &[u8]| {
    let address = Address::of("firecracker");
    let listener = address.listen();
    listener
        .set_nonblocking(true)
        .expect("a socket that does not wait");
    memory::begin();
    let manner = Manner {
        name: "S",
        seats: 10,
        longest_body: BODY,
        old_go_on: true,
        comes: NOTHING_COMES,
        peers: Peers::All,
        descriptors: usize::from(input.len() % 2 == 1),
        refuse: |status, why| {
            Answer::new(status, Some(format!("{{\"fault_message\":{why:?}}}")))
        },
    };
    let mut server = Server::new(listener.into(), manner);
    let mut peers: Vec<Peer> = Vec::new();
    let mut rest = input;
    while let Some(([what, which, a, b], behind)) = rest.split_first_chunk() {
        rest = behind;
        let (count, index) = (peers.len(), usize::from(*which) % peers.len().max(1));
        match (what & 7, peers.get_mut(index)) {
            (0, _) | (_, None) if count < MOST => peers.push(Peer::new(address.connect())),
            (1, Some(peer)) => {
                let (said, behind) = rest.split_at(rest.len().min(usize::from(*a)));
                peer.say_with(said, usize::from(*b) % 4);
                rest = behind;
            }
            (2 | 3, Some(peer)) => {
                let (words, behind) = rest.split_at(rest.len().min(usize::from(what >> 3)));
                let bytes = request(*a, *b, words);
                let most = if what & 7 == 2 {
                    bytes.len()
                } else {
                    bytes.len() / 2
                };
                peer.say(&bytes[..most]);
                rest = behind;
            }
            // Many at once, which it does not read the answers of.
            (4, Some(peer)) => (0..*a).for_each(|_| peer.say(&request(*b, *b, &[]))),
            (5, Some(peer)) => drop(peer.hear(usize::from(*a) << 4)),
            (6, Some(peer)) => peer.shut(),
            (7, Some(_)) => drop(peers.remove(index)),
            _ => {}
        }
        turn(&mut server);
    }
    // Those who have gone make room.
    peers.truncate(4);
    (0..3).for_each(|_| turn(&mut server));
    let mut honest = Peer::new(address.connect());
    turn(&mut server);
    for (sent, status) in [
        ("GET /version HTTP/1.1\r\n\r\n", "HTTP/1.1 204 "),
        ("GET /x HTTP/1.0\r\n\r\n", "HTTP/1.1 400 "),
    ] {
        honest.say(sent.as_bytes());
        turn(&mut server);
        let told = String::from_utf8(honest.hear(4 << 10)).expect("text");
        assert!(told.starts_with(status), "{told}");
    }
});
