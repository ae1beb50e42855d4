//! Files of a guest, as archives: `kvmlet cp` makes and reads them, and here they are passed on as they come, unread.

use super::super::call::Call;
use super::super::problem::{BAD_REQUEST, Problem, Sort};
use super::chunks::Chunks;
use super::peer::{Gone, Peer, Sent};
use super::running;
use super::verb::Verb;
use crate::http::Answer;
use kvmlet_sys::wait::{self, Until};
use std::time::{Duration, Instant};

/// What they are.
pub const ARCHIVE: &str = "application/x-tar";

/// How long a client may neither send nor read.
const PATIENCE: Duration = Duration::from_secs(60);
/// With as much that is on its way, no more is read.
const MOST: usize = 256 << 10;
/// Read at once.
const READ_BYTES: usize = 64 << 10;
/// The most that a path of Linux has.
const MOST_PATH: usize = 4095;
const SLOW: Sort = Sort("bad-request", "The request is not understood", 408);

/// The path that is meant, as `kvmlet cp` takes it: the id keeps it from being taken for anything else.
fn place(call: &Call) -> Result<String, Problem> {
    let path = call.text("path").unwrap_or_default();
    let refuse = |detail: &str| Err(Problem::in_field("path", detail));
    match path {
        "" => return refuse("`path` is missing: which file, or which directory"),
        path if !path.starts_with('/') => return refuse("`path` is absolute"),
        path if path.contains('\0') => return refuse("a path has no zero byte in it"),
        path if path.len() > MOST_PATH => return refuse("`path` has 4095 bytes at most"),
        _ => {}
    }
    let (instance, _) = running(call)?;
    Ok(format!("{}:{path}", instance.id()))
}

/// Tells what is at a path.
pub fn get(call: &Call, peer: &mut Peer) -> Result<(), Problem> {
    let place = place(call)?;
    let mut verb = Verb::start(&["cp", "--", &place, "-"])?;
    verb.end_input();
    let mut buffer = vec![0; READ_BYTES];
    let (mut begun, mut since) = (false, Instant::now());
    let mut silent = false;
    while !(verb.is_mute() && silent) {
        let has_room = peer.unread() < MOST;
        // A guest may take its time.
        let due = (peer.unread() > 0).then(|| since + PATIENCE);
        let slots = [
            verb.output_slot(has_room),
            verb.error_slot(),
            peer.slot(false),
        ];
        let waited = wait::any(slots, Until::from(due));
        if waited.is_err() || peer.is_gone() || due.is_some_and(|due| due <= Instant::now()) {
            return Ok(());
        }
        silent = verb.hear();
        let count = match has_room {
            true => verb.read(&mut buffer),
            false => 0,
        };
        if count > 0 {
            if !std::mem::replace(&mut begun, true) {
                peer.begin(Answer::new(200, None).of_kind(ARCHIVE));
            }
            if peer.unread() == 0 {
                since = Instant::now();
            }
            peer.body(&buffer[..count]);
        }
        match peer.send() {
            Ok(0) => {}
            Ok(_) => since = Instant::now(),
            Err(Gone) => return Ok(()),
        }
    }
    // One that fails behind its beginning is cut off, and so is the answer: it says nothing of an end.
    verb.ended()?;
    peer.end_body();
    Ok(())
}

/// Makes files in a directory.
pub fn put(call: &Call, peer: &mut Peer) -> Result<(), Problem> {
    let owners = call.flag("owners")?;
    let place = place(call)?;
    let mut body = Body::of(call, peer)?;
    let words: &[&str] = match owners {
        true => &["cp", "--archive", "--", "-", &place],
        false => &["cp", "--", "-", &place],
    };
    let mut verb = Verb::start(words)?;
    let mut on_its_way = Vec::new();
    loop {
        on_its_way.append(&mut body.take(peer)?);
        verb.feed(&mut on_its_way);
        if body.is_over() && on_its_way.is_empty() {
            verb.end_input();
        }
        if verb.hear() {
            break;
        }
        let listens = !body.is_over() && on_its_way.len() < MOST;
        let slots = [
            verb.input_slot(!on_its_way.is_empty()),
            verb.error_slot(),
            peer.slot(listens),
        ];
        let due = (listens && on_its_way.is_empty()).then(|| Instant::now() + PATIENCE);
        let [_, _, heard] = wait::any(slots, Until::from(due)).unwrap_or_default();
        if due.is_some_and(|due| due <= Instant::now()) {
            return Err(Problem::new(SLOW, "The body was not whole in time."));
        }
        if (heard && !body.hear(peer, listens)?) || peer.is_gone() {
            return Ok(());
        }
        // The pages that it is to read are sent, whatever comes of it.
        if peer.send().is_err() {
            return Ok(());
        }
    }
    verb.ended()?;
    peer.answer(Answer::done());
    Ok(())
}

/// A body, as it comes.
enum Body {
    /// It has come with the request.
    Whole(Vec<u8>),
    /// That many bytes are left.
    Length(u64),
    Chunks(Chunks),
}

impl Body {
    fn of(call: &Call, peer: &mut Peer) -> Result<Self, Problem> {
        let Some(coming) = peer.manners.coming else {
            return Ok(Self::Whole(call.body.clone()));
        };
        if coming.expects && peer.incoming.is_empty() {
            peer.put(b"HTTP/1.1 100 \r\n\r\n");
            let _ = peer.send();
        }
        Ok(match coming.length {
            Some(length) => Self::Length(length as u64),
            None => Self::Chunks(Chunks::default()),
        })
    }

    /// What has come of it.
    fn take(&mut self, peer: &mut Peer) -> Result<Vec<u8>, Problem> {
        match self {
            Self::Whole(bytes) => Ok(std::mem::take(bytes)),
            Self::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX);
                let count = count.min(peer.incoming.len());
                *left -= count as u64;
                Ok(peer.incoming.drain(..count).collect())
            }
            Self::Chunks(chunks) => {
                let taken = chunks.take(&mut peer.incoming);
                taken.map_err(|why| Problem::new(BAD_REQUEST, why))
            }
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Length(left) => *left == 0,
            Self::Chunks(chunks) => chunks.is_over(),
        }
    }

    /// Hears more; false where the client ends before its body does.
    fn hear(&self, peer: &mut Peer, listens: bool) -> Result<bool, Problem> {
        if !listens {
            return Ok(true);
        }
        match peer.listen() {
            Ok(Sent::End) | Err(Gone) => Ok(false),
            Ok(Sent::More | Sent::Nothing) => Ok(true),
        }
    }
}
