//! A driver whose every move the fuzzer chooses: it keeps to the rules, or it does not; another vCPU changes memory
//! while the device works; the host limits, pauses and resets. What must hold all the same is looked after.
#![allow(dead_code)] // each target uses its part

mod accounts;
mod chase;
pub mod devices;
pub mod ear;
mod moves;
mod other_vcpu;
pub mod ram;
mod requests;
mod shadow;
pub mod subject;

use accounts::{AVAIL, ENTRIES, Queue, USED};
use kvmlet_sys::event::Event;
use kvmlet_sys::wait::{self, Slot, Until};
use kvmlet_vmm::devices::Device;
use kvmlet_vmm::devices::virtio::{MmioTransport, Patience, Transport, VirtioDevice};
use other_vcpu::OtherVcpu;
use shadow::Shadow;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use subject::Subject;

/// Behind the last ring of a queue.
const RINGS_END: u64 = 0x1000;
/// What an input begins with.
pub const HEADER_BYTES: usize = 8;
/// How long a worker gets to look at what it was told of, where it need not answer.
const PATIENCE: Duration = Duration::from_micros(300);
/// How long a device is looked at that must not do anything.
const STILLNESS: Duration = Duration::from_micros(50);
/// What nothing takes, even on a machine where others work: an answer, the end of a worker's work.
const NEVER: Duration = Duration::from_secs(5);

/// How an input is played, from its first bytes.
#[derive(Clone, Copy)]
pub struct Manners {
    /// The driver keeps to the rules: all that it asks must be answered.
    pub by_the_rules: bool,
    /// The device is watched for a while when it must stand still.
    pub watches: bool,
    /// VERSION_1, and as the input chooses: indirect descriptors, event indices, all that the device is for.
    pub features: u64,
}

impl Manners {
    pub fn new(header: [u8; HEADER_BYTES], device: &dyn VirtioDevice) -> Self {
        let choice = u64::from(header[0]);
        let own = if choice & 4 == 0 {
            device.features()
        } else {
            0
        };
        Self {
            by_the_rules: header[4] & 1 == 0,
            watches: header[4] & 6 == 6,
            features: 1 << 32 | (choice & 3) << 28 | own,
        }
    }

    fn event_idx(self) -> bool {
        self.features & 1 << 29 != 0
    }

    fn indirect(self) -> bool {
        self.features & 1 << 28 != 0
    }
}

/// The first bytes of an input, and the rest.
pub fn split(bytes: &[u8]) -> Option<([u8; HEADER_BYTES], &[u8])> {
    let (header, moves) = bytes.split_first_chunk()?;
    Some((*header, moves))
}

/// Sets the device up by the rules and makes the moves that `moves` spell.
pub fn drive(
    device: Box<dyn VirtioDevice>,
    subject: &mut dyn Subject,
    manners: Manners,
    moves: &[u8],
) {
    ear::listen();
    let mut driver = Driver::new(device, subject, manners);
    driver.set_up();
    for step in moves.chunks_exact(12) {
        let value: [u8; 8] = std::array::from_fn(|index| step[4 + index]);
        driver.step(step[0], [step[1], step[2], step[3]], value);
        driver.reap();
    }
    driver.finish();
}

struct Driver<'a> {
    transport: MmioTransport,
    subject: &'a mut dyn Subject,
    manners: Manners,
    line: Event,
    other_vcpu: &'static OtherVcpu,
    queues: Vec<Queue>,
    /// None but the driver has written to rings, so that what is in them says something.
    rings_are_clean: bool,
    /// What is in RAM, and what the device may change, while that can be known.
    shadow: Option<Shadow>,
}

impl<'a> Driver<'a> {
    fn new(device: Box<dyn VirtioDevice>, subject: &'a mut dyn Subject, manners: Manners) -> Self {
        let queues = device.queue_sizes().len() as u32;
        let line = Event::new().expect("an event");
        let ours = line.try_clone().expect("an event");
        let transport = MmioTransport::new(device, ram::empty().clone(), ours).expect("events");
        let keeps = subject.keeps_to_buffers();
        let known = manners.by_the_rules && keeps;
        Self {
            transport,
            subject,
            manners,
            line,
            other_vcpu: OtherVcpu::get(),
            queues: (0..queues).map(Queue::new).collect(),
            rings_are_clean: manners.by_the_rules || keeps,
            shadow: known.then(Shadow::of_empty_ram),
        }
    }

    fn write(&mut self, register: u64, value: u32) {
        let _ = self.transport.write(register, &value.to_le_bytes());
    }

    fn read(&mut self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    fn needs_reset(&mut self) -> bool {
        self.read(0x70) & 64 != 0
    }

    fn set_up(&mut self) {
        let queues = self.queues.len() as u32;
        for (register, value) in set_up(queues, self.manners.features) {
            self.write(register, value);
        }
        assert_eq!(self.read(0x70) & !64, 15, "a set-up by the rules");
    }

    /// Resets the device, which has let go of everything soon.
    fn reset(&mut self) {
        let since = Instant::now();
        self.write(0x70, 0);
        while self.read(0x70) != 0 {
            assert!(since.elapsed() < NEVER, "it does not let go");
            std::thread::yield_now();
        }
        assert!(
            since.elapsed() < NEVER,
            "the reset took {:?}",
            since.elapsed()
        );
        self.line.take();
        self.reap();
    }

    /// And begins anew.
    fn start_over(&mut self) {
        self.reset();
        self.other_vcpu.forget();
        let (by_the_rules, keeps) = (self.manners.by_the_rules, self.subject.keeps_to_buffers());
        ram::empty();
        self.shadow = (by_the_rules && keeps).then(Shadow::of_empty_ram);
        self.rings_are_clean = by_the_rules || keeps;
        self.queues = (0..self.queues.len() as u32).map(Queue::new).collect();
        self.set_up();
    }

    fn reap(&mut self) {
        if self.rings_are_clean {
            self.queues.iter_mut().for_each(Queue::reap);
        }
        self.subject.look();
    }

    /// Has the device stand still, as a pause does, with the guest.
    fn pause(&mut self) {
        self.other_vcpu.halt();
        self.transport.session().pause();
        assert!(
            self.transport.session().is_still(Patience::of(NEVER)),
            "no pause"
        );
        if self.manners.watches {
            let raised = self.line.take() > 0;
            self.nothing_changes();
            assert!(self.line.take() == 0, "a device in a pause has called");
            // What the driver has not heard of yet.
            raised.then(|| self.line.signal());
        }
        self.transport.session().resume();
        self.other_vcpu.go_on();
    }

    fn nothing_changes(&self) {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        ram::contents(&mut before);
        let until = Instant::now() + STILLNESS;
        while Instant::now() < until {
            std::thread::yield_now();
        }
        ram::contents(&mut after);
        assert!(before == after, "memory changes behind a guest's back");
    }

    /// The end of an input.
    fn finish(mut self) {
        if self.manners.by_the_rules {
            self.expect_answers();
        } else {
            let until = Instant::now() + PATIENCE;
            while Instant::now() < until {
                self.reap();
                std::thread::yield_now();
            }
        }
        // The workers' end: a panic of theirs is this input's.
        self.reset();
        self.other_vcpu.forget();
        if self.manners.watches {
            self.nothing_changes();
            assert!(self.line.take() == 0, "a device that was reset has called");
        }
        if let Some(shadow) = &mut self.shadow {
            for queue in &self.queues {
                shadow.give(queue.rings + AVAIL, RINGS_END - AVAIL);
            }
            shadow.compare();
        }
        let since = Instant::now();
        drop(self.transport);
        assert!(
            since.elapsed() < NEVER,
            "the end took {:?}",
            since.elapsed()
        );
        self.subject.look();
        self.subject.check();
    }

    /// Waits as a driver does, by its interrupt, until all is answered that must be.
    pub fn expect_answers(&mut self) {
        self.expect_answers_in(None);
    }

    /// The same, and in that queue all is answered, too.
    fn expect_answers_in(&mut self, queue: Option<usize>) {
        if !self.subject.lift_limits() || !self.rings_are_clean {
            return;
        }
        let mut deadline = Instant::now() + NEVER;
        self.reap();
        loop {
            let subject = &self.subject;
            let is_owed = |number| queue == Some(number as usize) || subject.answers(number);
            let waiting = |queue: &&Queue| queue.open() > 0 && is_owed(queue.number);
            let open: Vec<&Queue> = self.queues.iter().filter(waiting).collect();
            let Some(number) = open.first().map(|queue| queue.number) else {
                return;
            };
            let asks = self.manners.event_idx();
            let came = asks
                && open
                    .iter()
                    .fold(false, |came, queue| queue.wait_for_next() | came);
            // Not for long: the other end has to be looked after as well.
            if !came {
                wait_for(&self.line, Duration::from_millis(1));
            }
            let called = self.line.take() > 0;
            if called || came {
                self.reap();
                deadline = Instant::now() + NEVER;
                continue;
            }
            self.subject.look();
            assert!(
                !self.needs_reset(),
                "a reset is needed, though none is at fault"
            );
            assert!(
                Instant::now() < deadline,
                "queue {number}: no answer, or no interrupt"
            );
        }
    }
}

/// Waits until it is readable, but no longer than that.
fn wait_for(event: &Event, patience: Duration) {
    let _ = wait::one(Slot::readable(event.as_fd()), Until::after(patience));
}

/// The writes that set a device up by the rules and notify it: register and value.
pub fn set_up(queues: u32, features: u64) -> Vec<(u64, u32)> {
    let mut writes = vec![(0x70, 1), (0x70, 3)];
    for half in [0, 1] {
        writes.extend([(0x24, half), (0x20, (features >> (32 * half)) as u32)]);
    }
    writes.push((0x70, 11));
    for queue in 0..queues {
        writes.extend([(0x30, queue), (0x38, ENTRIES.into())]);
        let rings = ram::rings_of(queue);
        for (register, place) in [(0x80, rings), (0x90, rings + AVAIL), (0xa0, rings + USED)] {
            writes.extend([
                (register, place as u32),
                (register + 4, (place >> 32) as u32),
            ]);
        }
        writes.push((0x44, 1));
    }
    writes.push((0x70, 15));
    writes.extend((0..queues).map(|queue| (0x50, queue)));
    writes
}
