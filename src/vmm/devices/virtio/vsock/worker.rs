//! The thread of a socket device: queues, streams and the host in turn, and asleep when none has anything.

use super::HostSide;
use super::connection::{Next, Sent};
use super::handle::{Shared, count};
use super::packet::Header;
use super::switch::{Switch, Work};
use super::to_guest::ToGuest;
use super::watch::{Watch, place};
use crate::devices::virtio::{Broken, Chain, Drained, Fate, Orders, QueueState, Server, Virtqueue};
use rustix::event::epoll::{Event, EventFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Packets of one direction before the other has its turn.
const BATCH: usize = 64;
/// §5.10.6.7: a `virtio_vsock_event` with the number of VIRTIO_VSOCK_EVENT_TRANSPORT_RESET.
const TRANSPORT_RESET: [u8; 4] = 0u32.to_le_bytes();

/// How long a driver has to do what a transport reset means, which it shows by a new buffer for events: what is connected before
/// goes with the rest, and nobody is told. Linux takes less than a millisecond where it runs natively.
const SETTLING: Duration = Duration::from_secs(1);
/// How often that is looked at.
const SETTLING_LOOK: Duration = Duration::from_millis(2);

/// The queues with all that their thread needs to serve them.
pub(super) struct QueueServer {
    from_guest: Option<Virtqueue>,
    to_guest: Option<ToGuest>,
    events: Option<Virtqueue>,
    chain: Chain,
    /// The driver is to be told of a transport reset.
    announces: bool,
    /// It was told: how many buffers for events there were then, and until when it is waited for another.
    settles: Option<(u16, Instant)>,
    switch: Switch,
    watch: Watch,
    shared: Arc<Shared>,
    /// How long it stood still, which is nobody's fault; and since when it does.
    paused: Duration,
    left: Option<Instant>,
}

impl QueueServer {
    /// §5.10.2: receive, transmit, events. The driver is told first that its connections are gone, if it had any with
    /// these queues.
    pub fn new(
        queues: Vec<Option<Virtqueue>>,
        announces: bool,
        watch: Watch,
        host: Arc<dyn HostSide>,
        shared: Arc<Shared>,
    ) -> Self {
        let mut queues = queues.into_iter();
        let mut next = || queues.next().flatten();
        let (to_guest, from_guest, events) = (next(), next(), next());
        let switch = Switch::new(watch.clone(), host, shared.clone(), Instant::now());
        Self {
            from_guest,
            to_guest: to_guest.map(ToGuest::new),
            events,
            chain: Chain::default(),
            announces,
            settles: None,
            switch,
            watch,
            shared,
            paused: Duration::ZERO,
            left: None,
        }
    }

    /// Its queues, for another to go on with. Connections end with it.
    pub fn give_back(self) -> impl Iterator<Item = Virtqueue> {
        let to_guest = self.to_guest.map(ToGuest::into_queue);
        let queues = [to_guest, self.from_guest, self.events];
        queues.into_iter().flatten()
    }

    /// How far its queues have come, by their numbers.
    pub fn look(&self) -> Vec<(u16, QueueState)> {
        let to_guest = self.to_guest.as_ref().map(ToGuest::looked_at);
        let others = self.from_guest.iter().chain(&self.events);
        let queues = to_guest.into_iter().chain(others);
        queues
            .map(|queue| (queue.number(), queue.state()))
            .collect()
    }

    fn now(&self) -> Instant {
        Instant::now() - self.paused
    }

    /// Does something for each event that is watched.
    fn for_events(&mut self, act: impl Fn(&Watch, u64, BorrowedFd<'_>)) {
        let receive = self.to_guest.as_mut().map(|to_guest| &*to_guest.queue());
        let queues = [
            (place::RECEIVE, receive),
            (place::TRANSMIT, self.from_guest.as_ref()),
            (place::EVENTS, self.events.as_ref()),
        ];
        for (place, queue) in queues {
            if let Some(queue) = queue {
                act(&self.watch, place, queue.notified().as_fd());
            }
        }
        act(&self.watch, place::CALLED, self.shared.called.as_fd());
    }

    /// Serves a batch of each; true if there may be more.
    fn turn(&mut self) -> Result<bool, Broken> {
        self.switch.tick(self.now());
        if self.shared.take_interruption() {
            self.switch.clear();
            self.announces = true;
        }
        let mut more = self.announce()?;
        more |= self.listen()?;
        let was_full = self.switch.is_full();
        more |= self.speak()?;
        Ok(more || was_full && !self.switch.is_full())
    }

    /// Takes packets of the guest's.
    fn listen(&mut self) -> Result<bool, Broken> {
        let (Some(queue), switch) = (&mut self.from_guest, &mut self.switch) else {
            return Ok(false);
        };
        let drained = queue.drain(BATCH, |queue, chain| {
            if switch.is_full() {
                // The rest waits until the guest has fetched what it was told.
                return Ok::<_, Broken>(Fate::PutBack(()));
            }
            let memory = queue.memory();
            let header = Header::read(memory, chain)?;
            switch.hear(Sent {
                header,
                memory,
                chain,
            })?;
            Ok(Fate::Answered(0))
        })?;
        Ok(matches!(drained, Drained::Portion))
    }

    /// Sends packets to the guest.
    fn speak(&mut self) -> Result<bool, Broken> {
        if self.is_settling() {
            return Ok(false);
        }
        let Some(to_guest) = &mut self.to_guest else {
            return Ok(false);
        };
        if self.switch.next().is_none() {
            return Ok(false);
        }
        to_guest.queue().mute();
        let (mut more, mut is_starved) = (true, false);
        for _ in 0..BATCH {
            let Some(work) = self.switch.next() else {
                more = false;
                break;
            };
            if !send(&mut self.switch, to_guest, &self.shared, work)? {
                is_starved = true;
                break;
            }
        }
        let queue = to_guest.queue();
        queue.signal();
        match is_starved {
            true => queue.unmute(),
            false => Ok(more),
        }
    }

    /// Tells the driver of a transport reset, as soon as it takes that.
    fn announce(&mut self) -> Result<bool, Broken> {
        let (Some(queue), true) = (&mut self.events, self.announces) else {
            return Ok(false);
        };
        if !queue.pop(&mut self.chain)? {
            return queue.unmute();
        }
        if self.chain.writable_bytes() < TRANSPORT_RESET.len() as u64 {
            return Err(Broken::Request("an event's buffer is too short"));
        }
        self.chain.write(queue.memory(), 0, &TRANSPORT_RESET)?;
        queue.push(self.chain.head(), TRANSPORT_RESET.len() as u32);
        self.settles = Some((queue.offered(), Instant::now() + SETTLING));
        queue.signal();
        self.announces = false;
        Ok(false)
    }

    /// Is the driver still busy with a transport reset?
    fn is_settling(&mut self) -> bool {
        let offered = self.events.as_ref().map(Virtqueue::offered);
        let over =
            |(then, until): &mut (u16, Instant)| offered != Some(*then) || *until <= Instant::now();
        self.settles.take_if(over);
        self.settles.is_some()
    }

    /// Waits until there is something to do.
    fn wait(&mut self, events: &mut Vec<Event>, more: bool) {
        let now = self.now();
        let patience = match more {
            true => Some(Duration::ZERO),
            false if self.settles.is_some() => Some(SETTLING_LOOK),
            false => (self.switch.alarm()).map(|due| due.saturating_duration_since(now)),
        };
        self.watch.wait(events, patience);
        self.switch.tick(self.now());
        for event in events.iter() {
            let flags = event.flags;
            match event.data.u64() {
                place::ORDERS => {}
                place::HOST => self.switch.hear_host(),
                place::RECEIVE => {
                    let queue = self.to_guest.as_mut().map(|to_guest| &*to_guest.queue());
                    self.shared.notified(queue);
                }
                place::TRANSMIT => self.shared.notified(self.from_guest.as_ref()),
                place::EVENTS => self.shared.notified(self.events.as_ref()),
                place::CALLED => drop(self.shared.called.take()),
                token => self.switch.look(token, flags),
            }
        }
    }
}

impl Server for QueueServer {
    type Failure = Broken;

    fn serve(&mut self, orders: &Orders) -> Result<(), Broken> {
        self.paused += self
            .left
            .take()
            .map_or(Duration::ZERO, |left| left.elapsed());
        self.watch.add(orders, place::ORDERS, EventFlags::IN);
        self.for_events(|watch, place, event| watch.add(event, place, EventFlags::IN));
        self.switch.open();
        let mut events = Vec::new();
        while orders.are_to_work() {
            let more = self.turn()?;
            self.wait(&mut events, more);
        }
        // Other orders are another thread's to give, and its descriptors may be closed meanwhile.
        self.watch.remove(orders);
        self.left = Some(Instant::now());
        Ok(())
    }

    /// Connections end: whoever goes on with the queues begins without.
    fn abandon(&mut self) {
        self.switch.close();
        self.for_events(|watch, _, event| watch.remove(event));
    }
}

impl Shared {
    fn notified(&self, queue: Option<&Virtqueue>) {
        let times = queue.map_or(0, |queue| queue.notified().take());
        count(&self.counters.notifications, times);
    }
}

/// Sends one packet, or the data of one read; false if the guest has given no buffer for that.
fn send(
    switch: &mut Switch,
    to_guest: &mut ToGuest,
    shared: &Shared,
    work: Work,
) -> Result<bool, Broken> {
    let counters = &shared.counters;
    match work {
        Work::Reply(header) => {
            if !to_guest.take(1)? {
                return Ok(false);
            }
            to_guest.put(header)?;
            switch.replied();
        }
        Work::Of(token, Next::Control(operation)) => {
            if !to_guest.take(1)? {
                return Ok(false);
            }
            let header = switch.tell(token, |connection, guest_cid, now| {
                connection.tell(operation, 0, guest_cid, now)
            });
            header.map_or(Ok(()), |header| to_guest.put(header))?;
        }
        Work::Of(token, Next::Data { most, buffers }) => {
            if !to_guest.take(buffers)? {
                return Ok(false);
            }
            let put = switch.tell(token, |connection, guest_cid, now| {
                to_guest.put_data(connection, most, guest_cid, now)
            });
            let (packets, bytes) = put.unwrap_or(Ok((0, 0)))?;
            count(&counters.packets_to_guest, packets as u64);
            count(&counters.bytes_to_guest, bytes as u64);
            return Ok(true);
        }
    }
    count(&counters.packets_to_guest, 1);
    Ok(true)
}
