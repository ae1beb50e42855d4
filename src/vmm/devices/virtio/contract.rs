//! What every device keeps to, whatever it is for: the same tests for all, which [`contract_tests`] makes.

use super::fake_driver::{BUFFERS, FakeDriver, NEXT};
use super::{Patience, SessionState};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(10);
/// Requests at a time: their descriptors are few enough for a queue of 16 entries.
pub const REQUESTS: u16 = 4;

/// A device with requests to it.
pub trait Subject: Sized {
    /// The queue that requests are put into.
    const QUEUE: usize;
    /// Descriptors of a request.
    const DESCRIPTORS: u16;
    /// How often it is put to rest in the midst of traffic.
    const RESTS: u32 = 1000;

    /// The device, whose driver is ready, with all features but EVENT_IDX.
    fn ready() -> Self;

    fn driver(&mut self) -> &mut FakeDriver;

    /// Describes the request of that number, from descriptor `head` on, at a place of its own.
    fn describe(&mut self, number: u16, head: u16);

    /// What the outside must do for the answers of as many requests as are offered.
    fn prompt(&mut self, _requests: u16) {}

    /// Has the device look at the queue, where it does so only if it has something to put there.
    fn provoke(&mut self) {}

    /// Looks at an answer: the request's number, and the bytes written.
    fn check(&mut self, number: u16, written: u32);

    /// What else a driver does after a reset.
    fn start(&mut self) {
        self.driver().forget_queues();
        self.driver().start(!(1 << 29));
    }
}

/// A place for what a request is about: 64 KiB.
pub fn place(number: u16) -> u64 {
    BUFFERS + 0x1_0000 * u64::from(number)
}

/// Offers all requests.
fn ask<S: Subject>(subject: &mut S) {
    let heads: Vec<u16> = (0..REQUESTS)
        .map(|number| number * S::DESCRIPTORS)
        .collect();
    for (number, head) in (0..).zip(&heads) {
        subject.describe(number, *head);
    }
    subject.driver().offer_all(S::QUEUE, &heads);
}

/// Waits for an answer to each.
fn expect<S: Subject>(subject: &mut S) {
    let mut open: Vec<u16> = (0..REQUESTS).collect();
    while !open.is_empty() {
        let (head, written) = subject.driver().used(S::QUEUE);
        let number = head as u16 / S::DESCRIPTORS;
        let place = open.iter().position(|asked| *asked == number);
        open.remove(place.expect("a request is answered once"));
        subject.check(number, written);
    }
    assert_eq!(subject.driver().poll_used(S::QUEUE), None);
}

fn exchange(subject: &mut impl Subject) {
    ask(subject);
    subject.prompt(REQUESTS);
    expect(subject);
}

/// Waits a moment that differs from time to time, so that the device is met in the midst of different things.
fn while_it_works(round: u32) {
    (0..round % 16).for_each(|_| std::thread::yield_now());
}

pub fn a_reset_in_the_midst_of_traffic_is_a_new_beginning<S: Subject>() {
    let mut subject = S::ready();
    for round in 0..30 {
        ask(&mut subject);
        while_it_works(round);
        subject.driver().reset();
        subject.start();
    }
    exchange(&mut subject);
    assert!(!subject.driver().needs_reset());
}

pub fn a_pause_in_the_midst_of_traffic_loses_nothing<S: Subject>() {
    let mut subject = S::ready();
    for round in 0..30 {
        ask(&mut subject);
        subject.prompt(REQUESTS);
        while_it_works(round);
        let session = subject.driver().transport.session();
        session.pause();
        assert!(session.is_still(Patience::of(LONG)));
        let before = subject.driver().bytes(0, BUFFERS as usize);
        std::thread::sleep(Duration::from_micros(300));
        assert_eq!(before, subject.driver().bytes(0, BUFFERS as usize));
        subject.driver().transport.session().resume();
        expect(&mut subject);
    }
}

pub fn it_sleeps_in_the_midst_of_traffic_and_wakes<S: Subject>() {
    let mut subject = S::ready();
    for round in 0..30 {
        ask(&mut subject);
        subject.prompt(REQUESTS);
        while_it_works(round);
        let session = subject.driver().transport.session();
        assert!(session.sleep(Instant::now() + LONG));
        let halted = session.halted().expect("it was active");
        let queue = halted.queues[S::QUEUE].as_ref();
        let state = queue.expect("a queue that was served").state();
        // What it has taken it has answered.
        assert_eq!(state.next_avail, state.next_used);
        // It sleeps on, whatever it is told; and a sleeper has nothing more to give.
        subject.driver().write(0x50, S::QUEUE as u32);
        let session = subject.driver().transport.session();
        assert!(session.sleep(Instant::now()));
        let before = subject.driver().bytes(0, BUFFERS as usize);
        std::thread::sleep(Duration::from_micros(300));
        assert_eq!(before, subject.driver().bytes(0, BUFFERS as usize));
        subject.driver().transport.session().wake();
        expect(&mut subject);
    }
    assert!(!subject.driver().needs_reset());
}

/// It rests, tells how far it has come, and goes on: itself, or by what it has told.
pub fn it_rests_in_the_midst_of_traffic_and_loses_nothing<S: Subject>() {
    let mut subject = S::ready();
    for round in 0..S::RESTS {
        ask(&mut subject);
        subject.prompt(REQUESTS);
        while_it_works(round);
        let transport = &mut subject.driver().transport;
        assert!(transport.session().rest(Instant::now() + LONG));
        let state = transport.state();
        let before = subject.driver().bytes(0, BUFFERS as usize);
        let transport = &mut subject.driver().transport;
        let elsewhere = round % 4 == 3;
        if elsewhere {
            assert!(transport.session().sleep(Instant::now() + LONG));
            // What it gives back is what it has told.
            assert_eq!(transport.state(), state);
            transport.take_up(&state).unwrap();
        }
        if round % 16 == 0 {
            std::thread::sleep(Duration::from_micros(300));
        }
        assert_eq!(subject.driver().bytes(0, BUFFERS as usize), before);
        subject.driver().transport.session().wake();
        expect(&mut subject);
    }
    assert!(!subject.driver().needs_reset());
}

pub fn what_no_device_could_have_told_is_refused<S: Subject>() {
    let mut subject = S::ready();
    ask(&mut subject);
    let transport = &mut subject.driver().transport;
    assert!(transport.session().sleep(Instant::now() + LONG));
    let good = transport.state();
    type Lie = fn(&mut SessionState, usize);
    let lies: [Lie; 9] = [
        |state, _| state.device_type += 100,
        |state, _| state.status = 0x400,
        |state, _| state.driver_features |= 1 << 63,
        |state, _| state.queues.truncate(0),
        |state, queue| state.queues[queue].size = 3,
        |state, queue| state.queues[queue].size = 1 << 15,
        |state, queue| state.queues[queue].descriptors = 1 << 40,
        |state, queue| state.queues[queue].device = u64::MAX - 3,
        |state, queue| state.queues[queue].driver += 1,
    ];
    for (number, lie) in lies.iter().enumerate() {
        let mut state = good.clone();
        lie(&mut state.session, S::QUEUE);
        let transport = &mut subject.driver().transport;
        assert!(transport.take_up(&state).is_err(), "lie {number}");
    }
    // What a queue has come to is not known better than by its driver, who may lie as well.
    let mut state = good.clone();
    let progress = state.session.queues[S::QUEUE].progress.as_mut();
    let progress = progress.expect("a queue that was served");
    progress.next_avail = progress.next_avail.wrapping_sub(1000);
    let transport = &mut subject.driver().transport;
    transport.take_up(&state).unwrap();
    transport.session().wake();
    subject.provoke();
    subject.driver().expect_needs_reset();
    subject.driver().reset();
    subject.start();
    exchange(&mut subject);
}

pub fn a_sleeper_can_be_reset<S: Subject>() {
    let mut subject = S::ready();
    ask(&mut subject);
    let session = subject.driver().transport.session();
    assert!(session.sleep(Instant::now() + LONG));
    subject.driver().reset();
    assert!(subject.driver().transport.session().halted().is_none());
    subject.start();
    exchange(&mut subject);
}

pub fn a_broken_queue_is_told_and_mended_by_a_reset<S: Subject>() {
    type Breakage = fn(&mut FakeDriver, usize);
    let breakages: [Breakage; 4] = [
        |driver, queue| {
            driver.describe(queue, 0, (1 << 40, 4, 0, 0));
            driver.offer(queue, 0);
        },
        |driver, queue| {
            driver.describe(queue, 0, (BUFFERS, 4, NEXT, 1));
            driver.describe(queue, 1, (BUFFERS, 4, NEXT, 0));
            driver.offer(queue, 0);
        },
        |driver, queue| driver.offer(queue, 500),
        |driver, queue| {
            driver.set_avail_index(queue, 1000);
            driver.write(0x50, queue as u32);
        },
    ];
    let mut subject = S::ready();
    for breakage in breakages {
        breakage(subject.driver(), S::QUEUE);
        subject.provoke();
        subject.driver().expect_needs_reset();
        // A broken device can sleep as well, and is not served when it wakes.
        let session = subject.driver().transport.session();
        assert!(session.sleep(Instant::now() + LONG));
        session.wake();
        assert!(subject.driver().needs_reset());
        subject.driver().reset();
        subject.start();
        exchange(&mut subject);
    }
}

/// Has a driver reach its device as it likes, or by a PCI bus.
pub fn over_pci(test: impl FnOnce()) {
    super::pci::fake::over_pci(test);
}

/// Tests a [`Subject`] behind either transport.
macro_rules! contract_tests {
    ($name:ident, $subject:ty) => {
        mod $name {
            use crate::devices::virtio::contract;

            #[test]
            fn a_reset_in_the_midst_of_traffic_is_a_new_beginning() {
                contract::a_reset_in_the_midst_of_traffic_is_a_new_beginning::<$subject>();
            }

            #[test]
            fn a_pause_in_the_midst_of_traffic_loses_nothing() {
                contract::a_pause_in_the_midst_of_traffic_loses_nothing::<$subject>();
            }

            #[test]
            fn it_sleeps_in_the_midst_of_traffic_and_wakes() {
                contract::it_sleeps_in_the_midst_of_traffic_and_wakes::<$subject>();
            }

            #[test]
            fn it_rests_in_the_midst_of_traffic_and_loses_nothing() {
                contract::it_rests_in_the_midst_of_traffic_and_loses_nothing::<$subject>();
            }

            #[test]
            fn what_no_device_could_have_told_is_refused() {
                contract::what_no_device_could_have_told_is_refused::<$subject>();
            }

            #[test]
            fn a_sleeper_can_be_reset() {
                contract::a_sleeper_can_be_reset::<$subject>();
            }

            #[test]
            fn a_broken_queue_is_told_and_mended_by_a_reset() {
                contract::a_broken_queue_is_told_and_mended_by_a_reset::<$subject>();
            }

            #[test]
            fn a_reset_in_the_midst_of_traffic_is_a_new_beginning_over_pci() {
                contract::over_pci(
                    contract::a_reset_in_the_midst_of_traffic_is_a_new_beginning::<$subject>,
                );
            }

            #[test]
            fn a_pause_in_the_midst_of_traffic_loses_nothing_over_pci() {
                contract::over_pci(
                    contract::a_pause_in_the_midst_of_traffic_loses_nothing::<$subject>,
                );
            }

            #[test]
            fn it_sleeps_in_the_midst_of_traffic_and_wakes_over_pci() {
                contract::over_pci(
                    contract::it_sleeps_in_the_midst_of_traffic_and_wakes::<$subject>,
                );
            }

            #[test]
            fn it_rests_in_the_midst_of_traffic_and_loses_nothing_over_pci() {
                contract::over_pci(
                    contract::it_rests_in_the_midst_of_traffic_and_loses_nothing::<$subject>,
                );
            }

            #[test]
            fn what_no_device_could_have_told_is_refused_over_pci() {
                contract::over_pci(contract::what_no_device_could_have_told_is_refused::<$subject>);
            }

            #[test]
            fn a_sleeper_can_be_reset_over_pci() {
                contract::over_pci(contract::a_sleeper_can_be_reset::<$subject>);
            }

            #[test]
            fn a_broken_queue_is_told_and_mended_by_a_reset_over_pci() {
                contract::over_pci(
                    contract::a_broken_queue_is_told_and_mended_by_a_reset::<$subject>,
                );
            }
        }
    };
}
pub(crate) use contract_tests;
