//! Plays a guest's agent over its socket device: it connects to the host for its service, and takes processes to execute.
//! What it is described as arguments it does in their order:
//!
//! * `bytes=BYTES`: writes how many there are, whatever they are
//! * `out=TEXT`, `err=TEXT`: writes a line, when it has credit for it; `many=BYTES`: as much to standard output
//! * `env=NAME`: writes how long the variable is, `user`: whom it is to run as
//! * `echo`: writes its input to standard output, to its end; `size`: waits for a size of its terminal, and writes it
//! * `stay`: until it is stopped, or sent a signal, which kills it; `deaf`: for ever
//! * `exit=N`: ends; `off=N`: the machine does, without a word
//! * `fail=N`: is not started, and why; `mute`: nothing is told of it
//! * `flood`: writes without credit, `torrent`: without end; `noise`: sends no frames; `twice`: ends again and again; `vanish`: closes the
//!   connection; `hang`: ends with 0, and does not power off
//!
//! * `shy`: does not answer the first that wants to take over the service
//! * `net`: from now on it sends back what it gets at its interface, too ([`kvmlet_guests::echo`])
//! * `turns=CODES`: ends with the first digit when that is asked for the first time, and so on; the last one stays
//!
//! A host that attaches to its service, as one does that has it go on from a snapshot, takes that over with all that is left of it.
//!
//! Without any it stays. What `/bin/sh -c` is to run are such words, too. Signals, and what is done to its clock and its random
//! numbers, are told on its console. Whatever it waits for, its CPU halts meanwhile: there may be hundreds of these.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::borrow::ToOwned;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use kvmlet_contract::channel::{
    AGENT_PORT, Description, Ended, Event, Fault, Message, Output, Request, StopStep, VERSION,
};
use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::echo::Echo;
use kvmlet_guests::virtio::{self, Identity};
use kvmlet_guests::{interrupts, ioapic, lapic, power, println};
use virtio_drivers::Error;
use virtio_drivers::device::socket::{
    SocketError, VirtIOSocket, VsockAddr, VsockConnectionManager, VsockEvent, VsockEventType,
};
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::mmio::MmioTransport;

kvmlet_guests::program!(run);

const OWN_PORT: u32 = 4000;
/// Of a session that nobody is left of.
const NOBODYS_PORT: u32 = 0;
/// VMADDR_CID_HOST.
const HOST: u64 = 2;
/// A receive buffer, with a header in it.
const BUFFER_BYTES: usize = 4096;
const ROOM: u32 = 64 << 10;
/// Of the socket device's interrupt.
const VECTOR: u8 = 0x31;
/// Of the interface's.
const NET_VECTOR: u8 = 0x32;
/// Of a frame of output, with its header.
const FRAME_BYTES: usize = 4096;

/// How often `turns` was asked for.
static TURNS: AtomicUsize = AtomicUsize::new(0);
/// Who takes over the service is not heard, once.
static SHY: AtomicBool = AtomicBool::new(false);
/// It is at its interface, too.
static NET: AtomicBool = AtomicBool::new(false);
/// What its clock was set to, in nanoseconds; 1970 before.
static CLOCK: AtomicU64 = AtomicU64::new(1);

type Sockets = VsockConnectionManager<Identity, MmioTransport<'static>, BUFFER_BYTES>;

fn run(info: &BootInfo) -> u8 {
    println!("an agent on its console");
    match serve(info) {
        Ok(()) => 0,
        Err(error) => {
            println!("failed: {error}");
            1
        }
    }
}

/// More packets than the driver's queue has. It tells of one that nothing comes of (of a connection that is gone, say) as of
/// none, and of those behind it there is no interrupt then: several times in a row there has to be none.
const PACKETS: u32 = 64;

/// A device, whose interrupt ends [`interrupts::wait`].
fn device(info: &BootInfo, kind: DeviceType, vector: u8) -> MmioTransport<'static> {
    let (address, pin) = virtio::listed(info, kind);
    // What there is to do is seen in the queues.
    interrupts::set_handler(vector, || {});
    lapic::enable();
    ioapic::route_edge(pin, vector, lapic::id());
    virtio::device_at(address, kind)
}

fn serve(info: &BootInfo) -> Result<(), Error> {
    let driver =
        VirtIOSocket::<Identity, _, BUFFER_BYTES>::new(device(info, DeviceType::Socket, VECTOR))?;
    let mut sockets: Sockets = VsockConnectionManager::new_with_capacity(driver, ROOM);
    sockets.listen(AGENT_PORT);
    let host = VsockAddr {
        cid: HOST,
        port: AGENT_PORT,
    };
    sockets.connect(host, OWN_PORT)?;
    let mut sessions: Vec<Session> = Vec::new();
    let mut quiet = 0;
    let mut echo = None;
    loop {
        let mut idle = true;
        if NET.load(Ordering::Relaxed) {
            let echo = echo.get_or_insert_with(|| {
                let echo = Echo::new(info, device(info, DeviceType::Network, NET_VECTOR));
                echo.unwrap_or_else(|| panic!("it has no interface"))
            });
            idle = !echo.turn();
        }
        quiet += 1;
        if let Some(VsockEvent {
            source,
            destination,
            event_type,
            ..
        }) = sockets.poll()?
        {
            (idle, quiet) = (false, 0);
            let at = |it: &Session| it.peer == source && it.port == destination.port;
            match event_type {
                VsockEventType::Connected | VsockEventType::ConnectionRequest => {
                    // In another machine hosts begin with the same numbers.
                    for old in sessions.iter_mut().filter(|it| at(it)) {
                        old.port = NOBODYS_PORT;
                        old.outbound.clear();
                    }
                    sessions.push(Session::new(source, destination.port));
                }
                VsockEventType::Received { length } => {
                    let mut data = vec![0; length];
                    let count = sockets.recv(source, destination.port, &mut data)?;
                    sockets.update_credit(source, destination.port)?;
                    if let Some(session) = sessions.iter_mut().find(|it| at(it)) {
                        session.inbound.extend_from_slice(&data[..count]);
                        session.hear();
                    }
                }
                VsockEventType::Disconnected { .. } => {
                    sessions.retain(|it| !at(it));
                    let _ = sockets.force_close(source, destination.port);
                }
                VsockEventType::CreditRequest | VsockEventType::CreditUpdate => {}
            }
        }
        take_over(&mut sessions);
        for session in &mut sessions {
            idle &= !session.go_on();
            idle &= !session.send(&mut sockets);
        }
        if idle && quiet > PACKETS {
            // Whatever has come since it was looked for is pending, and ends this at once.
            interrupts::wait();
        }
    }
}

/// Gives the service to the session that wants to have it.
fn take_over(sessions: &mut Vec<Session>) {
    let Some(new) = sessions.iter().position(|it| it.attaches) else {
        return;
    };
    sessions[new].attaches = false;
    if SHY.swap(false, Ordering::Relaxed) {
        println!("shy");
        return;
    }
    let serves = |(at, it): (usize, &Session)| (at != new && it.is_service).then_some(at);
    let Some(old) = sessions.iter().enumerate().find_map(serves) else {
        return;
    };
    let steps = core::mem::take(&mut sessions[old].steps);
    let (stop_signal, code) = (sessions[old].stop_signal, sessions[old].code);
    let session = &mut sessions[new];
    (session.steps, session.stop_signal, session.code) = (steps, stop_signal, code);
    (session.is_service, session.started) = (true, true);
    session.tell(&Event::Started { pid: 7 });
    sessions.remove(old);
}

/// A connection of the host's, or to it.
struct Session {
    peer: VsockAddr,
    port: u32,
    inbound: Vec<u8>,
    outbound: VecDeque<Vec<u8>>,
    description: Vec<u8>,
    /// What is still to be done, once it was started.
    steps: VecDeque<String>,
    started: bool,
    credit: [u32; 2],
    input: Vec<u8>,
    input_ended: bool,
    size: Option<String>,
    /// The signal that it was sent, or was stopped by.
    signalled: Option<u8>,
    stop_signal: u8,
    code: u8,
    closes: bool,
    /// What runs by it is the machine's service.
    is_service: bool,
    /// It wants to have the service that another one has.
    attaches: bool,
}

impl Session {
    fn new(peer: VsockAddr, port: u32) -> Self {
        let mut session = Self {
            peer,
            port,
            inbound: Vec::new(),
            outbound: VecDeque::new(),
            description: Vec::new(),
            steps: VecDeque::new(),
            started: false,
            credit: [0; 2],
            input: Vec::new(),
            input_ended: false,
            size: None,
            signalled: None,
            stop_signal: 15,
            code: 0,
            closes: false,
            is_service: port == OWN_PORT,
            attaches: false,
        };
        session.tell(&Event::Hello { version: VERSION });
        session
    }

    fn tell(&mut self, event: &Event<'_>) {
        let mut bytes = vec![0; FRAME_BYTES + 16];
        let length = event.encode(&mut bytes).unwrap_or(0);
        bytes.truncate(length);
        self.outbound.push_back(bytes);
    }

    /// Takes the requests that are there.
    fn hear(&mut self) {
        let bytes = core::mem::take(&mut self.inbound);
        let mut rest = &bytes[..];
        loop {
            match Request::decode(rest) {
                Ok(Some((request, length))) => {
                    self.take(request);
                    rest = &rest[length..];
                }
                Ok(None) => break,
                Err(error) => panic!("the host sent {error}"),
            }
        }
        self.inbound = rest.to_owned();
    }

    fn take(&mut self, request: Request<'_>) {
        match request {
            Request::Describe { part } => self.description.extend_from_slice(part),
            Request::Begin { .. } => self.description.clear(),
            Request::Start { .. } => self.start(),
            Request::Renew => {
                let bytes = core::mem::take(&mut self.description);
                let name = Description::parse(&bytes).ok();
                let name = name.and_then(|it| it.hostname).unwrap_or("nobody");
                println!("another machine, {name}");
                self.tell(&Event::Done);
            }
            Request::Attach => self.attaches = true,
            Request::Credit { output, bytes } => self.credit[output.index()] += bytes,
            Request::Input { bytes } => self.input.extend_from_slice(bytes),
            Request::EndInput => self.input_ended = true,
            Request::Resize { size } => {
                self.size = Some(format!("size={}x{}", size.columns, size.rows));
            }
            Request::Signal { signal, .. } => {
                println!("sent signal {signal}");
                self.signalled = Some(signal);
            }
            Request::Stop { signal, .. }
                if self.steps.front().is_some_and(|step| step == "stay") =>
            {
                let signal = signal.unwrap_or(self.stop_signal);
                let step = StopStep::Signalled { signal };
                self.tell(&Event::Stopping { step });
                self.signalled = Some(signal);
            }
            Request::PowerOff if self.steps.is_empty() => power::off(self.code),
            Request::ReadClock => self.tell(&Event::Clock {
                realtime_ns: CLOCK.load(Ordering::Relaxed),
                boottime_ns: 1,
            }),
            Request::SetClock { realtime_ns } => {
                CLOCK.store(realtime_ns, Ordering::Relaxed);
                println!("its clock is set to {}", realtime_ns / 1_000_000_000);
                self.tell(&Event::Done);
            }
            Request::AddEntropy { bytes } => {
                println!("{} random bytes", bytes.len());
                self.tell(&Event::Done);
            }
            _ => {}
        }
    }

    fn start(&mut self) {
        let bytes = core::mem::take(&mut self.description);
        let Ok(description) = Description::parse(&bytes) else {
            panic!("the host described nothing")
        };
        let words = description.arguments();
        self.steps = words
            .map(|word| match word.to_bytes().strip_prefix(b"bytes=") {
                Some(bytes) => format!("out={}", bytes.len()),
                None => word.to_string_lossy().into_owned(),
            })
            .collect();
        if self.steps.front().is_some_and(|step| step == "/bin/sh") {
            let words = self.steps.pop_back().unwrap_or_default();
            self.steps = words.split_whitespace().map(ToOwned::to_owned).collect();
        }
        if self.steps.is_empty() {
            self.steps.push_back("stay".to_owned());
        }
        self.stop_signal = description.stop_signal.unwrap_or(15);
        for step in &mut self.steps {
            if let Some(name) = step.strip_prefix("env=") {
                let mut variables = description.variables();
                let value = variables.find_map(|it| it.to_bytes().strip_prefix(name.as_bytes()));
                *step = format!("out={name} {}", value.map_or(0, |it| it.len() - 1));
            } else if step == "user" {
                *step = format!("out={}", description.user.unwrap_or("nobody"));
            }
        }
        match self.steps[0].clone() {
            step if step.starts_with("fail=") => {
                let exit_code = number(&step) as u8;
                let (fault, message) = (Fault::Start { exit_code }, &b"run it: on purpose"[..]);
                self.tell(&Event::Failed { fault, message });
                self.code = exit_code;
                self.steps.clear();
            }
            step if step == "mute" => {}
            _ => {
                self.tell(&Event::Started { pid: 7 });
                self.started = true;
                if description.input {
                    self.tell(&Event::InputCredit { bytes: ROOM });
                }
            }
        }
    }

    /// Does what can be done now; true if a step is done.
    fn go_on(&mut self) -> bool {
        let mut done = false;
        while self.started && self.outbound.len() < 8 {
            let Some(step) = self.steps.front().cloned() else {
                return done;
            };
            if !self.step(&step) {
                return done;
            }
            self.steps.pop_front();
            done = true;
        }
        done
    }

    /// Does a step; false if it is not done yet.
    fn step(&mut self, step: &str) -> bool {
        let (word, value) = step.split_once('=').unwrap_or((step, ""));
        match word {
            "out" => return self.write(Output::Stdout, value),
            "err" => return self.write(Output::Stderr, value),
            "many" => return self.write_many(number(step)),
            "echo" => return self.echo(),
            "size" => match self.size.take() {
                None => return false,
                Some(text) => return self.write(Output::Stdout, &text),
            },
            "stay" => match self.signalled {
                None => return false,
                Some(signal) => self.end(Ended::Signal(signal)),
            },
            "deaf" => return false,
            "exit" => self.end(Ended::Code(number(step) as u8)),
            "turns" => {
                let turn = TURNS.fetch_add(1, Ordering::Relaxed);
                let digits = value.as_bytes();
                let digit = digits.get(turn).or(digits.last()).unwrap_or(&b'0');
                self.end(Ended::Code(digit - b'0'));
            }
            "net" => NET.store(true, Ordering::Relaxed),
            "shy" => SHY.store(true, Ordering::Relaxed),
            "off" => power::off(number(step) as u8),
            "flood" => (0..20).for_each(|_| self.tell_more()),
            "torrent" => {
                self.tell_more();
                return false;
            }
            "noise" => self.outbound.push_back(vec![0xff; 64]),
            "twice" => (0..2).for_each(|_| {
                self.tell(&Event::Exited {
                    ended: Ended::Code(0),
                });
            }),
            "vanish" => self.closes = true,
            "" => {}
            "hang" => {
                self.end(Ended::Code(0));
                self.steps.push_back("deaf".to_owned());
            }
            _ => panic!("nobody knows how to {step}"),
        }
        true
    }

    /// Writes, whether it may or not.
    fn tell_more(&mut self) {
        let (output, bytes) = (Output::Stdout, &[b'x'; FRAME_BYTES][..]);
        self.tell(&Event::Output { output, bytes });
    }

    fn end(&mut self, ended: Ended) {
        self.code = ended.exit_code();
        self.tell(&Event::Exited { ended });
        self.steps.clear();
        // The one that is being done, which is taken away.
        self.steps.push_back(String::new());
        // The connection of one that is executed ends with it.
        self.closes = !self.is_service;
    }

    fn write(&mut self, output: Output, text: &str) -> bool {
        let line = text.to_string() + "\n";
        self.write_bytes(output, line.as_bytes())
    }

    fn write_bytes(&mut self, output: Output, bytes: &[u8]) -> bool {
        let credit = &mut self.credit[output.index()];
        let Some(left) = credit.checked_sub(bytes.len() as u32) else {
            return false;
        };
        *credit = left;
        self.tell(&Event::Output { output, bytes });
        true
    }

    /// Writes some of that many bytes, and leaves the rest as a step.
    fn write_many(&mut self, count: usize) -> bool {
        let some = count.min(FRAME_BYTES).min(self.credit[0] as usize);
        if some > 0 && self.write_bytes(Output::Stdout, &vec![b'x'; some]) {
            self.steps[0] = format!("many={}", count - some);
        }
        count == some
    }

    fn echo(&mut self) -> bool {
        let most = self
            .input
            .len()
            .min(self.credit[0] as usize)
            .min(FRAME_BYTES);
        let bytes: Vec<u8> = self.input.drain(..most).collect();
        if !bytes.is_empty() {
            self.write_bytes(Output::Stdout, &bytes);
            let bytes = bytes.len() as u32;
            self.tell(&Event::InputCredit { bytes });
        }
        self.input_ended && self.input.is_empty()
    }

    /// Sends as much as the host has room for; true if that is anything.
    fn send(&mut self, sockets: &mut Sockets) -> bool {
        let mut sent = false;
        while let Some(next) = self.outbound.pop_front() {
            let full = SocketError::InsufficientBufferSpaceInPeer;
            if sockets.send(self.peer, self.port, &next) == Err(Error::SocketDeviceError(full)) {
                self.outbound.push_front(next);
                return sent;
            }
            sent = true;
        }
        if core::mem::take(&mut self.closes) {
            let _ = sockets.shutdown(self.peer, self.port);
        }
        sent
    }
}

fn number(step: &str) -> usize {
    let value = step.split('=').nth(1);
    match value.and_then(|value| value.parse().ok()) {
        Some(number) => number,
        None => panic!("{step} has no number"),
    }
}
