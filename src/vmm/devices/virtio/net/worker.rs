//! The thread of a queue pair: both directions in turn, in batches, and asleep when neither can go on.

use super::control::Control;
use super::lane::Lane;
use super::port::Port;
use super::receive::Receiver;
use super::stats::{Shared, count};
use super::step::Wait;
use super::transmit::Transmitter;
use crate::devices::virtio::{Broken, Orders, Polling, QueueState, Server, Virtqueue};
use kvmlet_sys::wait::{self, Slot, Until};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What one thread serves; a driver may leave out any queue.
pub(super) struct Pair {
    pub lanes: Arc<[Lane]>,
    pub index: usize,
    pub receiver: Option<Receiver>,
    pub transmitter: Option<Transmitter>,
    pub control: Option<Control>,
    pub shared: Arc<Shared>,
    pub polling: Polling,
}

/// What each part waits for.
struct Waits {
    receive: Wait,
    transmit: Wait,
    control: Wait,
}

impl Server for Pair {
    type Failure = Broken;

    fn serve(&mut self, orders: &Orders) -> Result<(), Broken> {
        while orders.are_to_work() {
            let waits = self.turn()?;
            let (found, looked) = self.finds_more(orders, &waits);
            if !found && !self.listens_and_finds_more(&waits)? {
                self.wait(orders, &waits, looked);
            }
        }
        Ok(())
    }
}

impl Pair {
    /// Its queues, and the frame that waits for the guest's buffers or for its tokens, with its header.
    pub fn give_back(self) -> (impl Iterator<Item = Virtqueue>, Option<Vec<u8>>) {
        let (receive, frame) = self.receiver.map(Receiver::give_back).unzip();
        let transmit = self.transmitter.map(Transmitter::into_queue);
        let control = self.control.map(Control::into_queue);
        let queues = [receive, transmit, control];
        (queues.into_iter().flatten(), frame.flatten())
    }

    /// What it would [give back](Self::give_back): how far its queues have come, by their numbers, and the frame.
    pub fn look(&self) -> (Vec<(u16, QueueState)>, Option<Vec<u8>>) {
        let receive = self.receiver.as_ref().map(Receiver::look);
        let (receive, frame) = receive.unzip();
        let others = [
            self.transmitter.as_ref().map(Transmitter::queue),
            self.control.as_ref().map(Control::queue),
        ];
        let others = others.into_iter().flatten();
        let others = others.map(|queue| (queue.number(), queue.state()));
        (receive.into_iter().chain(others).collect(), frame.flatten())
    }

    fn lane(&self) -> &Lane {
        &self.lanes[self.index]
    }

    fn turn(&mut self) -> Result<Waits, Broken> {
        let control = match &mut self.control {
            Some(control) => control.run()?,
            None => Wait::Nothing,
        };
        let receive = match &mut self.receiver {
            Some(receiver) => {
                let active = self.lanes[self.index].active();
                if *active {
                    receiver.run()?
                } else {
                    receiver.forget();
                    Wait::Nothing
                }
            }
            None => Wait::Nothing,
        };
        let transmit = match &mut self.transmitter {
            Some(transmitter) => transmitter.run()?,
            None => Wait::Nothing,
        };
        Ok(Waits {
            receive,
            transmit,
            control,
        })
    }

    /// Looks for frames for as long as that pays, before the driver is asked to notify of them; how long it did, too.
    fn finds_more(&mut self, orders: &Orders, waits: &Waits) -> (bool, Duration) {
        // What is held up by something else is nothing to look for.
        if waits.transmit != Wait::Queue {
            return (false, Duration::ZERO);
        }
        let receives = waits.receive == Wait::Port;
        let (port, transmitter) = (&self.lanes[self.index].port, &self.transmitter);
        let (found, took) = self.polling.look(|| {
            let sends = transmitter.as_ref().is_some_and(|it| it.queue().has_more());
            sends || (receives && is_readable(&**port)) || !orders.are_to_work()
        });
        count(&self.shared.poll_ns, took.as_nanos() as u64);
        (found, took)
    }

    /// Has the driver notify of what it sends from now on; true if there is something already.
    fn listens_and_finds_more(&mut self, waits: &Waits) -> Result<bool, Broken> {
        match &mut self.transmitter {
            Some(transmitter) if waits.transmit == Wait::Queue => transmitter.listen(),
            _ => Ok(false),
        }
    }

    /// Waits until there is something to do, which was looked for that long.
    fn wait(&mut self, orders: &Orders, waits: &Waits, looked: Duration) {
        let since = (waits.transmit == Wait::Queue).then(Instant::now);
        let parts = [
            self.receiver
                .as_ref()
                .map(|part| (waits.receive, part.queue(), Slot::readable(part.timer()))),
            self.transmitter
                .as_ref()
                .map(|part| (waits.transmit, part.queue(), Slot::readable(part.timer()))),
            self.control
                .as_ref()
                .map(|part| (waits.control, part.queue(), Slot::NOTHING)),
        ];
        let [receive, transmit, control] = parts.map(|part| match part {
            Some((Wait::Queue, queue, _)) => Slot::readable(queue.notified().as_fd()),
            Some((Wait::Timer, _, timer)) => timer,
            _ => Slot::NOTHING,
        });
        let lane = self.lane();
        let beside = match waits.receive {
            Wait::Port => lane.port.beside().map(Slot::readable),
            _ => None,
        };
        let port = lane.port.as_fd();
        // A port that nobody waits for is left out: its errors would be reported all the time.
        let port = match parts.map(|part| part.is_some_and(|part| part.0 == Wait::Port)) {
            [true, true, _] => Slot::usable(port),
            [true, false, _] => Slot::readable(port),
            [false, true, _] => Slot::writable(port),
            [false, false, _] => Slot::NOTHING,
        };
        let [called, changed] = [orders.as_fd(), lane.changed.as_fd()].map(Slot::readable);
        let beside = beside.unwrap_or(Slot::NOTHING);
        let slots = [called, changed, port, beside, receive, transmit, control];
        let [_, changed, port, _, came @ ..] =
            wait::any(slots, self.until(waits)).unwrap_or_default();
        if changed {
            lane.changed.take();
        }
        let slept = since.filter(|_| port || came[1]);
        let slept = slept.map(|since| looked + since.elapsed());
        let notified = parts.into_iter().zip(came).filter_map(|(part, came)| {
            let (wait, queue, _) = part?;
            (came && wait == Wait::Queue).then(|| queue.notified().take())
        });
        count(&self.shared.notifications, notified.sum());
        slept.into_iter().for_each(|time| self.polling.slept(time));
    }

    /// How long there is nothing to do without an event.
    fn until(&self, waits: &Waits) -> Until {
        if [waits.receive, waits.transmit, waits.control].contains(&Wait::Again) {
            return Until::Now;
        }
        let receiver = self.receiver.as_ref();
        let receiver = receiver.filter(|_| waits.receive == Wait::Queue);
        let patience = receiver.and_then(Receiver::patience);
        patience.map_or(Until::Forever, Until::after)
    }
}

/// Is there a frame at the port now?
fn is_readable(port: &dyn Port) -> bool {
    let [frame] = wait::any([Slot::readable(port.as_fd())], Until::Now).unwrap_or_default();
    frame
}
