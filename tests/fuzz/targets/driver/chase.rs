//! Requests that come just when the device has answered: between its last look at a ring and its wish to be told of
//! more. One that is overlooked then would be seen with the next, so nothing else is asked before it is answered.

use super::{Driver, NEVER};
use std::time::{Duration, Instant};

/// Requests of one move that come behind the answer to another.
const ROUNDS: u32 = 12;
/// The unit of the time between an answer and the next request.
const MOMENT: Duration = Duration::from_nanos(50);

impl Driver<'_> {
    /// By the rules, and with a device that has nothing to do: asks, asks again some moments after the answer, and
    /// waits by the interrupt for that one's.
    pub fn chase(&mut self, queue: usize, about: [u8; 3], choice: [u8; 8]) {
        self.expect_answers();
        let [_, first, further] = about;
        for round in 0..ROUNDS {
            // What waits there already is not answered at once.
            if self.queues[queue].open() > 0 || !self.ask_at_once(queue, about, choice) {
                return;
            }
            self.await_answer(queue);
            let moments = (u32::from(first) + round * u32::from(further)) % 512;
            let until = Instant::now() + MOMENT * moments;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            if self.ask_at_once(queue, about, choice) {
                self.expect_answers_in(Some(queue));
            }
            self.reap();
        }
    }

    /// Makes a request that is answered at once; false if there is none.
    fn ask_at_once(&mut self, queue: usize, about: [u8; 3], choice: [u8; 8]) -> bool {
        let before = self.queues[queue].open();
        if let Some(choice) = self.subject.at_once(queue as u32, choice) {
            self.ask(queue, about, choice);
        }
        self.queues[queue].open() > before
    }

    /// Waits for an answer as no driver does: without an interrupt, to see it first.
    fn await_answer(&self, queue: usize) {
        let since = Instant::now();
        while !self.queues[queue].is_answered() {
            assert!(since.elapsed() < NEVER, "queue {queue}: no answer");
            std::hint::spin_loop();
        }
    }
}
