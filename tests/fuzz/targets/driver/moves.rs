//! The moves of an input.

use super::accounts::{AVAIL, ENTRIES, USED};
use super::{Driver, ram};
use kvmlet_vmm::devices::Device;

impl Driver<'_> {
    /// One move; the upper bits of `how` choose the queue.
    pub fn step(&mut self, how: u8, about: [u8; 3], value: [u8; 8]) {
        let queue = usize::from(how >> 4) % self.queues.len();
        let against_the_rules = !self.manners.by_the_rules;
        match how & 15 {
            0 | 1 => self.access(how, about, value),
            2 if against_the_rules => self.poke(about, value),
            3 if against_the_rules => self.describe_anything(queue, about, value),
            4 if against_the_rules => self.offer(queue, vec![about[0].into()], None),
            9 if against_the_rules => self.ask_anything(queue, about, value),
            2..=9 => self.ask(queue, about, value),
            10 => self.flip(queue, about, value),
            11 => self.subject.act(value),
            12 => self.pause(),
            13 if about[0] & 3 == 0 => self.start_over(),
            13 => std::thread::yield_now(),
            // Whoever asks again at once would not notice that a notification or an interrupt was lost.
            14 if !against_the_rules && about[0] & 16 != 0 => self.expect_answers(),
            14 => (0..usize::from(about[0] & 15)).for_each(|_| {
                std::thread::yield_now();
                self.reap();
            }),
            15 if !against_the_rules && about[0] & 3 == 0 => self.chase(queue, about, value),
            _ => self.write(0x50, queue as u32),
        }
    }

    /// Registers, or only the configuration space.
    fn access(&mut self, how: u8, [low, high, kind]: [u8; 3], value: [u8; 8]) {
        let place = u64::from(u16::from_le_bytes([low, high])) & 0x1ff;
        let place = match self.manners.by_the_rules {
            true => place | 0x100,
            false => place,
        };
        let width = [4, 4, 1, 2, 8, 3, 5, 4][usize::from(kind & 7)];
        match how & 1 {
            0 => self.transport.read(place, &mut [0; 8][..width]),
            _ if (place, &value[..width]) == (0x70, &[0; 4]) => self.start_over(),
            _ => drop(self.transport.write(place, &value[..width])),
        }
    }

    /// Bytes anywhere.
    fn poke(&mut self, [low, high, region]: [u8; 3], value: [u8; 8]) {
        let offset = u64::from(u16::from_le_bytes([low, high])) * 8;
        let address = ram::REGIONS[usize::from(region & 1)].0 + offset;
        if ram::is_of_rings(address, 8) {
            self.rings_are_clean = false;
        }
        self.put(address, &value);
    }

    /// Has the other vCPU change something from now on. Who keeps to the rules changes only what is in buffers.
    fn flip(&mut self, queue: usize, [what, low, high]: [u8; 3], value: [u8; 8]) {
        let number = u64::from_le_bytes(value);
        let seed = u16::from_le_bytes([low, high]);
        let width = 1 << (what >> 4 & 3);
        let vcpu = self.other_vcpu;
        if self.manners.by_the_rules {
            if self.subject.keeps_to_buffers() {
                self.shadow = None;
                vcpu.flip(ram::place(seed), width, number);
            }
            return;
        }
        let rings = self.queues[queue].rings;
        let table = match what & 8 {
            0 => rings,
            _ => ram::table_of(queue as u32, high.into()),
        };
        let entry = table + 16 * u64::from(low % ENTRIES as u8);
        match what & 7 {
            0 => vcpu.flip(ram::place(seed), width, number),
            1 => {
                let other = ram::place(u16::from_le_bytes([value[0], value[1]]));
                vcpu.flip_between(entry, [ram::place(seed), other]);
            }
            2 => vcpu.flip(entry + 8, 4, number),
            3 => vcpu.flip(entry + 12, 2, number & 3),
            4 => vcpu.flip(entry + 14, 2, number & 31),
            kind => {
                self.rings_are_clean = false;
                match kind {
                    5 => vcpu.flip(rings + AVAIL + 2 * u64::from(low % 20), 2, number),
                    6 => vcpu.flip(rings + USED + 2 * u64::from(low % 70), 2, number),
                    _ => vcpu.flip(rings + u64::from(low) * 8, width, number),
                }
            }
        }
    }
}
