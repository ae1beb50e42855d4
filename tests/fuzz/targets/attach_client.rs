//! Programs that are attached to a service and send anything, in pieces, read nothing, and go: their supervisor holds little
//! for them, its guest hears nothing that it must not hear, and whoever keeps to the rules has all of the service's output.
#![no_main]

mod memory;
mod peer;

use kvmlet_control::agent::channel::{
    Client, Ended, Event, HEADER, MAX_PAYLOAD, Message, OUTPUT_WINDOW, Output, ProcessSpec,
    Request, Role, VERSION,
};
use kvmlet_control::agent::{Agent, AgentError};
use kvmlet_manager::logs::Stream;
use kvmlet_manager::supervision::Audience;
use kvmlet_sys::directory::Directory;
use libfuzzer_sys::fuzz_target;
use peer::{Peer, Place};

/// Programs that try to be attached at once: more than are.
const MOST: usize = 12;
/// No more is held for all of them together, in bytes.
const MEMORY: usize = 4 << 20;
/// Turns in which what can be passed on is.
const TURNS: usize = 200;

/// A guest that keeps to the rules, as its supervisor speaks with it.
struct Guest {
    client: Client,
    /// What it may write to each stream, and what it has written.
    granted: [usize; 2],
    written: [usize; 2],
    /// Input that it has room for.
    input: usize,
    input_is_over: bool,
    is_over: bool,
}

impl Guest {
    fn new() -> Self {
        let mut client = Client::new();
        let spec = ProcessSpec::default();
        client.start(&spec, Role::Service).expect("a description");
        Self {
            client,
            granted: [0; 2],
            written: [0; 2],
            input: 0,
            input_is_over: false,
            is_over: false,
        }
    }

    /// Tells something, which is passed on to those who are attached.
    fn tell(&mut self, event: &Event<'_>, audience: &mut Audience) {
        let bytes = encoded(event);
        assert_eq!(self.client.received(&bytes), bytes.len());
        while let Some(event) = self.client.next_event().expect("the rules") {
            match event {
                Event::Started { .. } => audience.started(),
                Event::Output { output, bytes } => audience.wrote(stream_of(output), bytes),
                Event::Exited { ended } => audience.ended(&Ok(ended)),
                _ => {}
            }
        }
    }

    fn write(&mut self, output: Output, most: usize, audience: &mut Audience) {
        const DATA: [u8; MAX_PAYLOAD] = [b'd'; MAX_PAYLOAD];
        let granted = &mut self.granted[output.index()];
        // Before its bytes a frame says which stream it is.
        let count = most.min(*granted).min(MAX_PAYLOAD - 1);
        if count > 0 && !self.is_over {
            *granted -= count;
            self.written[output.index()] += count;
            let bytes = &DATA[..count];
            self.tell(&Event::Output { output, bytes }, audience);
        }
    }

    fn give_room(&mut self, bytes: usize, audience: &mut Audience) {
        let bytes = bytes.min((1 << 20) - self.input);
        if bytes > 0 && !self.is_over {
            self.input += bytes;
            let bytes = bytes as u32;
            self.tell(&Event::InputCredit { bytes }, audience);
        }
    }

    /// Hears what its host says: nothing that breaks a rule.
    fn listen(&mut self) {
        let said = self.client.outgoing().to_vec();
        let mut rest = &said[..];
        while let Some((request, length)) = Request::decode(rest).expect("frames") {
            rest = &rest[length..];
            match request {
                Request::Credit { output, bytes } => {
                    let granted = &mut self.granted[output.index()];
                    *granted += bytes as usize;
                    assert!(*granted <= OUTPUT_WINDOW as usize, "{granted} bytes");
                }
                Request::Input { bytes } => {
                    assert!(!self.input_is_over, "input behind its end");
                    self.input = self.input.checked_sub(bytes.len()).expect("room");
                }
                Request::EndInput => {
                    assert!(!self.input_is_over, "two ends of input");
                    self.input_is_over = true;
                }
                _ => {}
            }
        }
        assert!(rest.is_empty(), "half a frame");
        self.client.sent(said.len());
    }
}

fn stream_of(output: Output) -> Stream {
    match output {
        Output::Stdout => Stream::Stdout,
        Output::Stderr => Stream::Stderr,
    }
}

fn encoded<'a>(message: &impl Message<'a>) -> Vec<u8> {
    let mut bytes = vec![0; HEADER + MAX_PAYLOAD];
    let length = message.encode(&mut bytes).expect("it fits");
    bytes.truncate(length);
    bytes
}

fn output_of(choice: u8) -> Output {
    Output::ALL[usize::from(choice & 1)]
}

/// What somebody may say who is attached, and what nobody may.
fn request([kind, a, b]: [u8; 3]) -> Vec<u8> {
    let all = [a; 4096];
    let bytes = u32::from(b) << (a >> 3 & 15);
    let output = output_of(a);
    encoded(&match kind % 12 {
        0..=2 => Request::Credit { output, bytes },
        3..=5 => Request::Input {
            bytes: &all[..usize::from(b) * 16 + 1],
        },
        6 => Request::EndInput,
        7 => Request::Signal {
            signal: b % 64 + 1,
            group: a & 1 == 0,
        },
        8 => Request::Attach,
        9 => Request::Hello { version: b.into() },
        10 => Request::Start {
            role: Role::Service,
        },
        _ => Request::PowerOff,
    })
}

/// Who keeps to the rules: what it has heard.
#[derive(Default)]
struct Honest {
    heard: [usize; 2],
    ended: bool,
}

impl Honest {
    fn turn(&mut self, agent: &mut Agent) {
        match agent.turn() {
            Ok(()) => {}
            Err(AgentError::Gone) if self.ended => {}
            Err(error) => panic!("{error}"),
        }
        let client = agent.client();
        while let Some(event) = client.next_event().expect("the rules") {
            match event {
                Event::Output { output, bytes } => {
                    let count = bytes.len();
                    assert!(!self.ended, "output behind the end");
                    self.heard[output.index()] += count;
                    client.taken(output, count);
                }
                Event::Exited { .. } => self.ended = true,
                _ => {}
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let place = Place::of("attach");
    let directory = Directory::open(place.path()).expect("a directory");
    memory::begin();
    let mut audience = Audience::listen(&directory).expect("a socket");
    let mut guest = Guest::new();
    let mut agent = Agent::new(place.connect("attach").into());
    agent.client().attach();
    let mut honest = Honest::default();
    let mut turn = |audience: &mut Audience, guest: &mut Guest| {
        honest.turn(&mut agent);
        audience.turn(Some(&mut guest.client), &mut Vec::new());
        guest.listen();
        memory::expect_at_most(MEMORY);
        honest.ended && honest.heard == guest.written
    };
    turn(&mut audience, &mut guest);
    guest.tell(&Event::Hello { version: VERSION }, &mut audience);
    guest.tell(&Event::Started { pid: 2 }, &mut audience);
    let mut peers: Vec<Peer> = Vec::new();
    let mut rest = input;
    while let Some(([what, which, a, b], behind)) = rest.split_first_chunk() {
        rest = behind;
        let (count, index) = (peers.len(), usize::from(*which) % peers.len().max(1));
        match (what & 7, peers.get_mut(index)) {
            (0, _) | (_, None) if count < MOST => {
                let mut peer = Peer::new(place.connect("attach"));
                if a & 3 != 0 {
                    peer.say(&encoded(&Request::Hello { version: VERSION }));
                    peer.say(&encoded(&Request::Attach));
                }
                peers.push(peer);
            }
            (1 | 2, Some(peer)) => {
                let said = request([what >> 3, *a, *b]);
                peer.say(&said[..said.len().min(usize::from(*which) << 4 | 15)]);
            }
            (3, Some(peer)) => {
                let (said, behind) = rest.split_at(rest.len().min(usize::from(*a)));
                peer.say(said);
                rest = behind;
            }
            (4, Some(peer)) => drop(peer.hear(usize::from(*a) << 8)),
            (5, Some(peer)) if a & 1 == 0 => peer.shut(),
            (5, Some(_)) => drop(peers.remove(index)),
            (6, _) => guest.give_room(usize::from(*a) << 4, &mut audience),
            _ => guest.write(output_of(*a), usize::from(*b) << 8 | 1, &mut audience),
        }
        turn(&mut audience, &mut guest);
    }
    // Who holds the service up has gone.
    drop(peers);
    guest.tell(
        &Event::Exited {
            ended: Ended::Code(0),
        },
        &mut audience,
    );
    guest.is_over = true;
    let has_all = (0..TURNS).any(|_| turn(&mut audience, &mut guest));
    assert!(has_all, "whoever keeps to the rules misses something");
});
