//! A blob that is read while it comes. A connection that breaks is replaced, and goes on where the last one ended; what
//! comes is what the digest says, or the last read fails.

use super::exchange::{self, Ask};
use super::{Access, Error, Registry};
use kvmlet_image::Digest;
use kvmlet_image::manifest::Descriptor;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};
use std::time::{Duration, Instant};
use ureq::http::{StatusCode, header};
use ureq::{BodyReader, Timeout};

/// What a connection is to bring ...
const STRETCH: u64 = 60_000;
/// ... in this time.
const STRETCH_TIME: Duration = Duration::from_secs(60);
/// Connections in a row that bring less than that.
const MAX_FAILURES: u32 = 5;
/// Connections altogether.
const MAX_CONNECTIONS: u32 = 1000;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Whether a connection has had all its time, whatever has come over it that is no content.
fn is_overdue(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|it| it.downcast_ref());
    matches!(cause, Some(ureq::Error::Timeout(Timeout::RecvBody)))
}

/// Reads what the registry has under a digest, over as many connections as it takes.
pub struct Blob<'a> {
    registry: &'a Registry,
    access: &'a Access,
    descriptor: Descriptor,
    what: String,
    source: Option<Source>,
    /// Bytes so far.
    at: u64,
    digest: Sha256,
    is_checked: bool,
    /// Connections since a whole stretch came.
    failures: u32,
    connections: u32,
}

impl<'a> Blob<'a> {
    pub(super) fn new(registry: &'a Registry, access: &'a Access, descriptor: Descriptor) -> Self {
        let what = format!("{}@{}", access.repository(), descriptor.digest);
        Self {
            registry,
            access,
            descriptor,
            what,
            source: None,
            at: 0,
            digest: Sha256::new(),
            is_checked: false,
            failures: 0,
            connections: 0,
        }
    }

    /// A connection that goes on where the last one ended.
    fn connect(&mut self) -> Result<Source, Error> {
        let (registry, access) = (self.registry, self.access);
        let path = format!(
            "/v2/{}/blobs/{}",
            access.repository(),
            self.descriptor.digest
        );
        let ask = self.resumed(Ask::get(format!("{}{path}", registry.base)));
        let mut answer = registry.ask(&ask, access, &self.what)?;
        if answer.status() == StatusCode::NOT_FOUND {
            // What the registry may not give away is elsewhere, where nobody is shown who asks.
            let urls = self.descriptor.urls.iter();
            for url in urls.filter(|url| url.starts_with("https://")) {
                let ask = self.resumed(Ask::get(url.clone()));
                answer = registry.patient(|| ask.send(&registry.agent, None))?;
                if answer.status().is_success() {
                    break;
                }
            }
        }
        let skipped = match answer.status() {
            StatusCode::PARTIAL_CONTENT => 0,
            // It knows no ranges: what has come already comes again.
            StatusCode::OK => self.at,
            _ => {
                let known = registry.knows(access)?;
                return Err(registry.status(answer, &self.what, known));
            }
        };
        let length = exchange::text(answer.headers(), &header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.parse::<u64>().ok());
        let expected = self.descriptor.size - self.at + skipped;
        if let Some(length) = length.filter(|length| *length != expected) {
            let why = format!("{length} bytes, not {expected}");
            return Err(registry.wrong(&self.what, why));
        }
        let mut source = Source {
            reader: answer.into_body().into_reader(),
            pace: Pace::default(),
        };
        // Whether these are the same bytes, the digest will tell.
        let (mut left, mut piece) = (skipped, [0; 16 << 10]);
        while left > 0 {
            let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match source.read(&mut piece[..length]) {
                Ok((0, _)) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                Ok((_, Verdict::Slow)) => return Err(self.slow()),
                Ok((count, _)) => left -= count as u64,
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(source)
    }

    fn resumed<'b>(&self, ask: Ask<'b>) -> Ask<'b> {
        // As long as it comes as slowly as it may.
        let stretches = self.descriptor.size / STRETCH + 1;
        let stretches = u32::try_from(stretches).unwrap_or(u32::MAX);
        let ask = ask.receiving(STRETCH_TIME.saturating_mul(stretches));
        match self.at {
            0 => ask,
            at => ask.header(header::RANGE, format!("bytes={at}-")),
        }
    }

    fn broken(&self, source: io::Error) -> Error {
        Error::Broken {
            what: self.what.clone(),
            at: self.at,
            size: self.descriptor.size,
            source,
        }
    }

    fn slow(&self) -> Error {
        Error::Slow {
            registry: self.registry.name.clone(),
            what: self.what.clone(),
        }
    }

    /// Some bytes of the connection that is there, or of a new one.
    fn receive(&mut self, bytes: &mut [u8]) -> Result<usize, Error> {
        let left = usize::try_from(self.descriptor.size - self.at).unwrap_or(usize::MAX);
        let length = bytes.len().min(left);
        loop {
            let mut source = match self.source.take() {
                Some(source) => source,
                None => {
                    self.connections += 1;
                    self.connect()?
                }
            };
            let failure = match source.read(&mut bytes[..length]) {
                Ok((0, _)) => io::ErrorKind::UnexpectedEof.into(),
                Ok((_, Verdict::Slow)) => return Err(self.slow()),
                Ok((count, verdict)) => {
                    self.source = Some(source);
                    if verdict == Verdict::Whole {
                        self.failures = 0;
                    }
                    return Ok(count);
                }
                Err(error) if is_overdue(&error) => return Err(self.slow()),
                Err(error) => error,
            };
            self.failures += 1;
            if self.failures > MAX_FAILURES || self.connections > MAX_CONNECTIONS {
                return Err(self.broken(failure));
            }
            log::info!(
                "{} breaks off after {} bytes: {failure}",
                self.what,
                self.at
            );
            std::thread::sleep(FIRST_PAUSE * (1 << (self.failures - 1)));
        }
    }

    fn check(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.is_checked, true) {
            return Ok(());
        }
        self.source = None;
        let found = Digest(std::mem::take(&mut self.digest).finalize().into());
        match found == self.descriptor.digest {
            true => Ok(()),
            false => Err(Error::Digest {
                registry: self.registry.name.clone(),
                what: self.what.clone(),
                expected: self.descriptor.digest,
                found,
            }),
        }
    }

    /// All of it, if it is not longer than that.
    ///
    /// # Errors
    /// When it is, or does not come.
    pub fn read_whole(mut self, limit: usize) -> Result<Vec<u8>, Error> {
        if self.descriptor.size > limit as u64 {
            let why = format!("{} bytes, more than {limit}", self.descriptor.size);
            return Err(self.registry.wrong(&self.what, why));
        }
        let mut all = vec![0; self.descriptor.size as usize];
        let mut filled = 0;
        while filled < all.len() {
            filled += self.next(&mut all[filled..])?;
        }
        self.check()?;
        Ok(all)
    }

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// When they do not come, or all of them are not what the digest says.
    pub fn next(&mut self, bytes: &mut [u8]) -> Result<usize, Error> {
        if self.at == self.descriptor.size {
            self.check()?;
            return Ok(0);
        }
        let count = self.receive(bytes)?;
        self.digest.update(&bytes[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

/// A connection that brings a blob.
struct Source {
    reader: BodyReader<'static>,
    pace: Pace,
}

impl Source {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<(usize, Verdict)> {
        let since = Instant::now();
        let count = self.reader.read(bytes)?;
        Ok((count, self.pace.note(count as u64, since.elapsed())))
    }
}

/// How a connection does. What its reader does between two reads does not count.
#[derive(Debug, Default)]
struct Pace {
    came: u64,
    waited: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The stretch goes on.
    Going,
    /// It came in time, and the next one begins.
    Whole,
    /// It takes too long.
    Slow,
}

impl Pace {
    fn note(&mut self, came: u64, waited: Duration) -> Verdict {
        self.came += came;
        self.waited += waited;
        let is_whole = self.came >= STRETCH;
        match (is_whole, self.waited > STRETCH_TIME) {
            (true, _) => {
                *self = Self::default();
                Verdict::Whole
            }
            (false, true) => Verdict::Slow,
            (false, false) => Verdict::Going,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the first pieces come to, one in a second, up to the first verdict.
    fn verdict(bytes: u64) -> (u64, Verdict) {
        let mut pace = Pace::default();
        let second = Duration::from_secs(1);
        let mut all = (1..).map(|n| (n, pace.note(bytes, second)));
        all.find(|(_, verdict)| *verdict != Verdict::Going).unwrap()
    }

    #[test]
    fn a_thousand_bytes_in_a_second_are_enough() {
        assert_eq!(verdict(1), (61, Verdict::Slow));
        assert_eq!(verdict(900), (61, Verdict::Slow));
        assert_eq!(verdict(1000), (60, Verdict::Whole));
        assert_eq!(verdict(1 << 20), (1, Verdict::Whole));
    }
}
