//! A client that was left to a stream. What is held of it is bounded by who asks for more.

use super::super::SERVER;
use super::super::problem::Problem;
use crate::http::{Answer, Coming};
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Read at once.
const READ_BYTES: usize = 16 << 10;
/// How long a client has to read what is left when all is said.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one that still sends is listened to then: it may read the answer only when it has sent all.
const LINGERING: Duration = Duration::from_secs(1);

/// What of its request says how it is spoken with.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// The request's.
    pub id: String,
    /// It understands chunks.
    pub chunks: bool,
    /// What it wants to speak from the answer on.
    pub upgrade: Option<String>,
    /// How the rest of its body comes.
    pub coming: Option<Coming>,
}

/// Nobody is left at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// What a client has sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// Something, which is with what it has sent before.
    More,
    /// Nothing now.
    Nothing,
    /// It sends no more.
    End,
}

/// A client.
#[derive(Debug)]
pub struct Peer {
    stream: OwnedFd,
    pub manners: Manners,
    /// What it has sent, and nobody has dealt with.
    pub incoming: Vec<u8>,
    outgoing: Vec<u8>,
    answered: bool,
}

impl Peer {
    /// One that has sent something behind its request. Its socket does not block.
    pub fn new(stream: OwnedFd, incoming: Vec<u8>, manners: Manners) -> Self {
        Self {
            stream,
            manners,
            incoming,
            outgoing: Vec::new(),
            answered: false,
        }
    }

    /// What is waited for on its behalf: that it goes, that there is room for what it is told, and what it sends, if that is wanted.
    pub fn slot(&self, listens: bool) -> Slot<'_> {
        match (listens, self.outgoing.is_empty()) {
            (true, true) => Slot::readable(self.stream.as_fd()),
            (true, false) => Slot::usable(self.stream.as_fd()),
            (false, true) => Slot::broken(self.stream.as_fd()),
            (false, false) => Slot::writable(self.stream.as_fd()),
        }
    }

    /// Has it closed both directions?
    pub fn is_gone(&self) -> bool {
        wait::one(Slot::broken(self.stream.as_fd()), Until::Now).unwrap_or(true)
    }

    /// How many bytes it is still to read.
    pub fn unread(&self) -> usize {
        self.outgoing.len()
    }

    /// Tells it something.
    pub fn put(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
    }

    /// Sends what there is room for; how much that was.
    pub fn send(&mut self) -> Result<usize, Gone> {
        let mut sent = 0;
        while sent < self.outgoing.len() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(&self.stream, &self.outgoing[sent..], flags) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(Gone),
            }
        }
        self.outgoing.drain(..sent);
        Ok(sent)
    }

    /// Hears what it has sent.
    pub fn listen(&mut self) -> Result<Sent, Gone> {
        let mut bytes = [0; READ_BYTES];
        match recv(&self.stream, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => Ok(Sent::End),
            Ok((count, _)) => {
                self.incoming.extend_from_slice(&bytes[..count]);
                Ok(Sent::More)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Sent::Nothing),
            Err(_) => Err(Gone),
        }
    }

    /// Speaks something else with it from now on.
    pub fn switch(&mut self, protocol: &str) {
        self.answered = true;
        let id = &self.manners.id;
        let head = format!(
            "HTTP/1.1 101 \r\nServer: {SERVER}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nRequest-Id: {id}\r\n\r\n"
        );
        self.put(head.as_bytes());
    }

    /// Begins an answer whose body follows, as long as it likes.
    pub fn begin(&mut self, answer: Answer) {
        self.answered = true;
        let mut answer = answer.with("Request-Id", self.manners.id.clone());
        if self.manners.chunks {
            answer = answer.with("Transfer-Encoding", "chunked");
        }
        self.put(&answer.to_head(SERVER));
    }

    /// Goes on with it.
    pub fn body(&mut self, bytes: &[u8]) {
        if !self.manners.chunks {
            return self.put(bytes);
        }
        // An empty chunk would be the last one.
        if !bytes.is_empty() {
            self.put(format!("{:x}\r\n", bytes.len()).as_bytes());
            self.put(bytes);
            self.put(b"\r\n");
        }
    }

    /// That was all of it: one that ends without this is known to be cut off.
    pub fn end_body(&mut self) {
        if self.manners.chunks {
            self.put(b"0\r\n\r\n");
        }
    }

    /// Answers it for the first and last time.
    pub fn answer(&mut self, answer: Answer) {
        self.answered = true;
        let answer = answer.with("Request-Id", self.manners.id.clone());
        self.put(&answer.to_bytes(SERVER, true));
    }

    /// The same, with why nothing came of it, if it was told nothing yet.
    pub fn refuse(&mut self, problem: Problem) {
        if !self.answered {
            self.answer(problem.with_id(&self.manners.id).answer());
        }
    }

    /// Has it read what is left, for a while, and closes the connection.
    pub fn finish(mut self) {
        let due = Instant::now() + PATIENCE;
        while self.unread() > 0 && Instant::now() < due {
            let waited = wait::one(self.slot(false), Until::Deadline(due));
            if waited.is_err() || self.send().is_err() {
                return;
            }
        }
        let _ = shutdown(&self.stream, Shutdown::Write);
        let due = Instant::now() + LINGERING;
        while Instant::now() < due {
            self.incoming.clear();
            let waited = wait::one(Slot::readable(self.stream.as_fd()), Until::Deadline(due));
            if !matches!(
                (waited, self.listen()),
                (Ok(true), Ok(Sent::More | Sent::Nothing))
            ) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn pair(chunks: bool) -> (UnixStream, Peer) {
        let (client, served) = UnixStream::pair().unwrap();
        served.set_nonblocking(true).unwrap();
        let manners = Manners {
            id: "1-1".into(),
            chunks,
            ..Manners::default()
        };
        (client, Peer::new(served.into(), Vec::new(), manners))
    }

    fn read(mut client: UnixStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn bodies_say_where_they_end() {
        let (client, mut peer) = pair(true);
        peer.begin(Answer::new(200, None));
        for part in [&b"ab"[..], b"", b"cde"] {
            peer.body(part);
        }
        peer.end_body();
        peer.finish();
        let text = read(client);
        assert!(text.contains("Transfer-Encoding: chunked\r\n"), "{text}");
        assert!(
            text.ends_with("\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"),
            "{text}"
        );
        let (client, mut peer) = pair(false);
        peer.begin(Answer::new(200, None));
        peer.body(b"ab");
        peer.end_body();
        peer.finish();
        let text = read(client);
        assert!(
            text.ends_with("\r\n\r\nab") && !text.contains("chunked"),
            "{text}"
        );
    }

    #[test]
    fn nobody_is_answered_twice() {
        let (client, mut peer) = pair(true);
        peer.answer(Answer::done());
        peer.refuse(Problem::new(super::super::HOST, "late"));
        peer.finish();
        let text = read(client);
        assert!(
            text.starts_with("HTTP/1.1 204 ") && !text.contains("late"),
            "{text}"
        );
    }

    #[test]
    fn who_has_gone_is_told_from_who_has_said_all() {
        let (client, peer) = pair(true);
        assert!(!peer.is_gone());
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(!peer.is_gone());
        drop(client);
        assert!(peer.is_gone());
    }
}
