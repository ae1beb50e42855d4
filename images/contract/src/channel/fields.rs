//! The form of a frame, and the fields in it.

use core::fmt;
use core::ops::RangeInclusive;

/// In each greeting: whoever says it knows these frames.
const MAGIC: u32 = u32::from_le_bytes(*b"kvml");

/// The kernel's last signal, SIGRTMAX.
const LAST_SIGNAL: u8 = 64;

/// The longest payload, in bytes.
pub const MAX_PAYLOAD: usize = 16 << 10;

/// Length of what precedes the payload, in bytes.
pub const HEADER: usize = 8;

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// Its length is beyond [`MAX_PAYLOAD`].
    TooLong {
        /// The length.
        length: u32,
    },
    /// There is no such kind, or none in this direction.
    UnknownKind {
        /// The kind.
        kind: u8,
    },
    /// The payload is not one of its kind, or the header's last three bytes are not zero.
    Malformed {
        /// The kind.
        kind: u8,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length } => write!(
                f,
                "a frame of {length} bytes, more than {MAX_PAYLOAD} (is the other side kvmlet's?)"
            ),
            Self::UnknownKind { kind } => write!(f, "a frame of the unknown kind {kind:#04x}"),
            Self::Malformed { kind } => {
                write!(f, "a frame of the kind {kind:#04x} with a broken payload")
            }
        }
    }
}

impl core::error::Error for FrameError {}

/// Kind, payload and whole length of a frame.
type Whole<'a> = (u8, &'a [u8], usize);

/// The first frame in `bytes`: its kind, its payload, its whole length; nothing while it is incomplete.
fn frame(bytes: &[u8]) -> Result<Option<Whole<'_>>, FrameError> {
    let Some((&[a, b, c, d, kind, zeros @ ..], rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes([a, b, c, d]);
    if length as usize > MAX_PAYLOAD {
        return Err(FrameError::TooLong { length });
    }
    if zeros != [0; 3] {
        return Err(FrameError::Malformed { kind });
    }
    let length = length as usize;
    Ok(rest
        .get(..length)
        .map(|payload| (kind, payload, HEADER + length)))
}

/// The first message in `bytes`, of which `read` reads the fields, and its length; nothing while it is incomplete. There are
/// these `kinds` in its direction.
pub(crate) fn message<'a, M>(
    bytes: &'a [u8],
    kinds: RangeInclusive<u8>,
    read: impl FnOnce(u8, &mut Fields<'a>) -> Option<M>,
) -> Result<Option<(M, usize)>, FrameError> {
    let Some((kind, payload, length)) = frame(bytes)? else {
        return Ok(None);
    };
    if !kinds.contains(&kind) {
        return Err(FrameError::UnknownKind { kind });
    }
    let mut fields = Fields(payload);
    match read(kind, &mut fields) {
        Some(message) if fields.0.is_empty() => Ok(Some((message, length))),
        _ => Err(FrameError::Malformed { kind }),
    }
}

/// The number of a signal, if it is one.
pub(crate) fn signal(number: u8) -> Option<u8> {
    (1..=LAST_SIGNAL).contains(&number).then_some(number)
}

/// A payload that is being read. Each method returns nothing if it does not have that field.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// The version in a greeting.
    pub(crate) fn greeting(&mut self) -> Option<u16> {
        self.u32().filter(|magic| *magic == MAGIC)?;
        self.u16()
    }

    /// All that is left, which may be nothing.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }
}

/// A frame that is being written into a buffer. What does not fit is noticed at the end.
pub(crate) struct Frame<'b> {
    out: &'b mut [u8],
    length: usize,
}

impl<'b> Frame<'b> {
    pub(crate) fn new(out: &'b mut [u8], kind: u8) -> Self {
        let mut frame = Self { out, length: 0 };
        frame.put(&[0, 0, 0, 0, kind, 0, 0, 0]);
        frame
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        if let Some(space) = self.out.get_mut(self.length..self.length + bytes.len()) {
            space.copy_from_slice(bytes);
        }
        self.length += bytes.len();
    }

    pub(crate) fn greeting(&mut self, version: u16) {
        self.put(&MAGIC.to_le_bytes());
        self.put(&version.to_le_bytes());
    }

    pub(crate) fn finish(self) -> Option<usize> {
        let payload = self.length - HEADER;
        if payload > MAX_PAYLOAD || self.length > self.out.len() {
            return None;
        }
        let length = u32::try_from(payload).ok()?;
        self.out[..4].copy_from_slice(&length.to_le_bytes());
        Some(self.length)
    }
}
