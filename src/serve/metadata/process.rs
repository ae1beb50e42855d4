//! The process that answers a guest: sockets that its frames come through, the data, and no more.

use super::answers::{Answers, Config};
use super::counted::{Counted, Slate};
use super::stack::Stack;
use super::wire::VIRTIO;
use kvmlet_control::{Channel, Received};
use kvmlet_host::walls::rights;
use kvmlet_sys::process::inherited;
use kvmlet_sys::standard_error;
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::Value;
use std::error::Error as StdError;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// The word that has this program be that process. Its arguments are the [`Config`], the number of a channel by which it gets
/// data, that of a file for what it counts, and those of sockets that frames come through.
pub const WORD: &str = "answer-guests";
/// Bytes that it may have mapped; more than it takes with the longest data and all connections.
const MAX_MEMORY: u64 = 256 << 20;
/// The longest frame, with what is in front of it, and one more byte.
const LONGEST_FRAME: usize = 12 + 14 + 4 + (1 << 16) + 1;
/// Frames of an interface in one turn.
const BATCH: usize = 16;
/// How many frames a guest may send in how long: what is more waits in its socket, and then is lost.
const MOST_FRAMES: usize = 1000;
const WINDOW: Duration = Duration::from_millis(100);

/// One interface.
pub(super) struct Lane {
    socket: OwnedFd,
    stack: Stack,
    /// A frame for which there was no room.
    waiting: Option<Vec<u8>>,
    is_gone: bool,
}

/// Is that process, with the arguments behind its word.
pub fn run(words: &[OsString]) -> u8 {
    match answer(words) {
        Ok(()) => 0,
        Err(error) => {
            standard_error::say(format_args!(
                "error: the metadata service has ended: {error}"
            ));
            standard_error::finish();
            1
        }
    }
}

fn answer(words: &[OsString]) -> Result<(), Box<dyn StdError>> {
    let mut words = words.iter().filter_map(|word| word.to_str());
    let config: Config = serde_json::from_str(words.next().ok_or("it is not told what to be")?)?;
    let mut descriptors = words.map(|word| Ok::<_, Box<dyn StdError>>(inherited(word.parse()?)?));
    let channel: Channel = descriptors.next().ok_or("it is told nothing")??.into();
    let slate: Slate = descriptors.next().ok_or("it counts nowhere")??.into();
    let mut secret = [0; 40];
    getrandom(&mut secret, GetRandomFlags::empty())?;
    let (key, seed) = secret.split_first_chunk::<32>().ok_or("no secret")?;
    let mut seed = u64::from_le_bytes(seed.try_into()?);
    let mut answers = Answers::new(config.version, config.imds_compat, *key);
    let lane = |socket: Result<OwnedFd, _>| {
        seed = seed.wrapping_add(1);
        let stack = Stack::new(config.address, seed);
        socket.map(|socket| Lane::new(socket, stack))
    };
    let mut lanes = descriptors.map(lane).collect::<Result<Vec<_>, _>>()?;
    let bound = Rlimit {
        current: Some(MAX_MEMORY),
        maximum: Some(MAX_MEMORY),
    };
    setrlimit(Resource::As, bound)?;
    rights::answer_guests()?;
    serve(&channel, &slate, &mut lanes, &mut answers)
}

/// Until nobody tells it data any more.
pub(super) fn serve(
    channel: &Channel,
    slate: &Slate,
    lanes: &mut [Lane],
    answers: &mut Answers,
) -> Result<(), Box<dyn StdError>> {
    let begun = Instant::now();
    let mut buffer = vec![0; LONGEST_FRAME];
    let mut noted = Counted::default();
    let (mut window, mut budget) = (Duration::ZERO, MOST_FRAMES);
    loop {
        let now = begun.elapsed();
        if now >= window {
            (window, budget) = (now + WINDOW, MOST_FRAMES);
        }
        let mut due: Option<Duration> = (budget == 0).then_some(window);
        for lane in &mut *lanes {
            let mut frames = Vec::new();
            while frames.len() < BATCH.min(budget) && lane.waiting.is_none() {
                match lane.receive(&mut buffer) {
                    Some(bytes) => frames.push(buffer[..bytes].to_vec()),
                    None => break,
                }
            }
            budget -= frames.len();
            answers.counted.rx_accepted += frames.len() as u64;
            // After the frames: what somebody was told is stored is found by whoever asks then.
            if !hear(channel, answers)? {
                return Ok(());
            }
            for frame in frames {
                lane.stack.take(&frame, now, answers);
                lane.send(&mut answers.counted);
            }
            // What there was no room for is the first.
            lane.send(&mut answers.counted);
            if lane.is_gone || lane.waiting.is_some() {
                continue;
            }
            lane.stack.turn(now, answers);
            lane.send(&mut answers.counted);
            due = due.into_iter().chain(lane.stack.due(now)).min();
        }
        if std::mem::replace(&mut noted, answers.counted) != answers.counted {
            slate.write(&noted);
        }
        let mut slots = vec![Slot::readable(channel.as_fd())];
        slots.extend(lanes.iter().map(|lane| match lane {
            Lane { is_gone: true, .. } => Slot::NOTHING,
            Lane {
                waiting: Some(_), ..
            } => Slot::writable(lane.socket.as_fd()),
            _ if budget == 0 => Slot::NOTHING,
            _ => Slot::readable(lane.socket.as_fd()),
        }));
        let until = due.map(|due| begun + due.max(now));
        wait::any_of(&mut slots, Until::from(until))?;
        if lanes.is_empty() && !hear(channel, answers)? {
            return Ok(());
        }
    }
}

/// Takes what it is told. False once nobody is there to tell it anything.
fn hear(channel: &Channel, answers: &mut Answers) -> Result<bool, Box<dyn StdError>> {
    loop {
        match channel.receive_with(1) {
            (Received::One(_), Some(file)) => answers.set(read(file.into())?),
            (Received::One(_), None) => {}
            (Received::None, _) => return Ok(true),
            (Received::Last, _) => return Ok(false),
        }
    }
}

fn read(mut file: File) -> Result<Value, Box<dyn StdError>> {
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

impl Lane {
    pub(super) fn new(socket: OwnedFd, stack: Stack) -> Self {
        Self {
            socket,
            stack,
            waiting: None,
            is_gone: false,
        }
    }

    /// The next frame that the guest has sent.
    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.is_gone {
            return None;
        }
        match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            // One that is not whole is none.
            Ok((bytes, _)) if bytes == buffer.len() => Some(0),
            Ok((bytes, _)) if bytes > 0 => Some(bytes),
            Err(Errno::AGAIN | Errno::INTR) => None,
            Ok(_) | Err(_) => {
                self.is_gone = true;
                None
            }
        }
    }

    /// Sends the guest what there is, as far as it is taken.
    fn send(&mut self, counted: &mut Counted) {
        while let Some(frame) = self.waiting.take().or_else(|| self.stack.next_frame()) {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.socket, &frame, flags) {
                Ok(bytes) => {
                    counted.tx_bytes += bytes.saturating_sub(VIRTIO) as u64;
                    counted.tx_count += 1;
                    counted.tx_frames += 1;
                }
                Err(Errno::AGAIN | Errno::INTR) => {
                    self.waiting = Some(frame);
                    return;
                }
                Err(_) => {
                    counted.tx_errors += 1;
                    self.is_gone = true;
                    return;
                }
            }
        }
    }
}
