//! Who has connected to a pool, and what they want.

use kvmlet_control::{POOL_BYTES, POOL_DESCRIPTORS, PoolAnswer, PoolRequest, send_with};
use kvmlet_sys::acceptor::{Acceptor, Peers};
use kvmlet_sys::wait::Slot;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// Programs that are served at a time; others wait to be accepted.
const MOST: usize = 256;

/// Programs of the pool's user.
pub(super) struct Clients {
    acceptor: Acceptor,
    all: Vec<Client>,
    /// Those who wait for a VM, by their numbers, the first first.
    queue: VecDeque<u64>,
    last: u64,
}

struct Client {
    number: u64,
    socket: OwnedFd,
}

impl Clients {
    pub fn new() -> Self {
        Self {
            acceptor: Acceptor::new(Peers::OwnUser),
            all: Vec::new(),
            queue: VecDeque::new(),
            last: 0,
        }
    }

    /// What is waited for on their behalf.
    pub fn slots<'a>(&'a self, listener: BorrowedFd<'a>) -> impl Iterator<Item = Slot<'a>> {
        let door = match self.all.len() < MOST {
            true => self.acceptor.slot(listener),
            false => Slot::NOTHING,
        };
        let all = self.all.iter().map(|it| Slot::readable(it.socket.as_fd()));
        [door].into_iter().chain(all)
    }

    /// When somebody can be accepted again.
    pub fn due(&self) -> Option<Instant> {
        self.acceptor.due()
    }

    /// Lets in who is there, and returns what is asked, by whom. `ready` is for each of the [slots](Self::slots).
    pub fn turn(&mut self, listener: BorrowedFd<'_>, ready: &[bool]) -> Vec<(u64, PoolRequest)> {
        let mut asked = Vec::new();
        let mut ready = ready.iter().skip(1);
        self.all.retain(|client| match ready.next() {
            Some(true) => match client.listen() {
                Ok(Some(request)) => {
                    asked.push((client.number, request));
                    true
                }
                Ok(None) => true,
                Err(Gone) => false,
            },
            _ => true,
        });
        while self.all.len() < MOST
            && let Some(socket) = self.acceptor.accept(listener)
        {
            self.last += 1;
            let client = Client {
                number: self.last,
                socket,
            };
            // Who connects has something to ask, and has mostly asked it.
            match client.listen() {
                Err(Gone) => continue,
                Ok(request) => asked.extend(request.map(|request| (client.number, request))),
            }
            self.all.push(client);
        }
        let (all, queue) = (&self.all, &mut self.queue);
        queue.retain(|number| all.iter().any(|client| client.number == *number));
        asked
    }

    /// This one waits for a VM.
    pub fn queue(&mut self, number: u64) {
        self.queue.push_back(number);
    }

    /// Who is the next to get one. Nobody gets one who is not there any more.
    pub fn next(&mut self) -> Option<u64> {
        while let Some(number) = self.queue.pop_front() {
            if self.find(number).is_some_and(Client::is_there) {
                return Some(number);
            }
        }
        None
    }

    pub fn is_waited_for(&self) -> bool {
        !self.queue.is_empty()
    }

    fn find(&self, number: u64) -> Option<&Client> {
        self.all.iter().find(|client| client.number == number)
    }

    /// Answers one. Who does not read its answers is closed.
    pub fn answer(&mut self, number: u64, answer: &PoolAnswer) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = self
            .find(number)
            .map(|client| send(&client.socket, &answer.encode(), flags));
        if let Some(Err(_)) = sent {
            self.all.retain(|client| client.number != number);
        }
    }

    /// The same, with what goes along. False if it is not taken.
    pub fn hand(
        &mut self,
        number: u64,
        answer: &PoolAnswer,
        descriptors: [BorrowedFd<'_>; POOL_DESCRIPTORS],
    ) -> bool {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        self.find(number).is_some_and(|client| {
            send_with(&client.socket, &answer.encode(), &descriptors, flags).is_ok()
        })
    }
}

/// It has gone, or says what is no message.
struct Gone;

impl Client {
    fn listen(&self) -> Result<Option<PoolRequest>, Gone> {
        let mut message = [0; POOL_BYTES];
        match recv(&self.socket, &mut message[..], RecvFlags::DONTWAIT) {
            Ok((count @ 1.., _)) => {
                let request = PoolRequest::decode(&message[..count]);
                request.map(Some).map_err(|_| Gone)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Ok(_) | Err(_) => Err(Gone),
        }
    }

    /// A process that was killed after it had asked has closed its end.
    fn is_there(&self) -> bool {
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        match recv(&self.socket, &mut [0; 1][..], flags) {
            Ok((count, _)) => count > 0,
            Err(error) => error == Errno::AGAIN,
        }
    }
}
