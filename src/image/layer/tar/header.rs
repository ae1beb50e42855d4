//! One block that says what a member of an archive is, in any of the forms: of Unix V7, POSIX (ustar), GNU and star.

use super::number;

/// A header's length, and of what all else in an archive is a multiple.
pub const BLOCK: usize = 512;

/// A field that does not say what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong(pub &'static str);

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The path, with its first part from where the form has it.
    pub path: Vec<u8>,
    /// What a link leads to.
    pub target: Vec<u8>,
    /// What kind of member it is.
    pub kind: u8,
    /// Rights.
    pub mode: i64,
    /// The owner.
    pub uid: i64,
    /// The owner's group.
    pub gid: i64,
    /// How much data follows, in bytes.
    pub size: i64,
    /// The time of the last change, in seconds.
    pub mtime: i64,
    /// Of a device.
    pub major: i64,
    /// Of a device.
    pub minor: i64,
}

/// Whose form it is, where that makes a difference.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    V7,
    Posix,
    Star,
    Gnu,
}

fn form(block: &[u8; BLOCK]) -> Form {
    match (&block[257..263], &block[263..265], &block[508..512]) {
        (b"ustar\0", _, b"tar\0") => Form::Star,
        (b"ustar\0", ..) => Form::Posix,
        (b"ustar ", b" \0", _) => Form::Gnu,
        _ => Form::V7,
    }
}

/// What is in front of the first NUL.
pub fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

impl Header {
    /// Reads a block.
    ///
    /// # Errors
    /// Which field is wrong; the checksum is looked at first.
    pub fn parse(block: &[u8; BLOCK]) -> Result<Self, Wrong> {
        let number =
            |name, range: std::ops::Range<usize>| number::field(&block[range]).ok_or(Wrong(name));
        let checksum = number("checksum", 148..156)?;
        if !sums(block).contains(&checksum) {
            return Err(Wrong("checksum"));
        }
        let form = form(block);
        let prefix = match form {
            Form::V7 => &[][..],
            Form::Posix => text(&block[345..500]),
            Form::Star => text(&block[345..476]),
            Form::Gnu => gnu_prefix(block),
        };
        let name = text(&block[..100]);
        let path = match prefix {
            [] => name.to_vec(),
            _ => [prefix, b"/", name].concat(),
        };
        let (major, minor) = match form {
            Form::V7 => (0, 0),
            _ => (number("major", 329..337)?, number("minor", 337..345)?),
        };
        Ok(Self {
            path,
            target: text(&block[157..257]).to_vec(),
            kind: block[156],
            mode: number("mode", 100..108)?,
            uid: number("uid", 108..116)?,
            gid: number("gid", 116..124)?,
            size: number("size", 124..136)?,
            mtime: number("mtime", 136..148)?,
            major,
            minor,
        })
    }
}

/// GNU has times where POSIX has the first part of a path. Go up to 1.8 wrote such a part all the same, so there are
/// layers with it: if there are no times in it, it is text.
fn gnu_prefix(block: &[u8; BLOCK]) -> &[u8] {
    let times = [&block[345..357], &block[357..369]];
    let prefix = text(&block[345..500]);
    match times.into_iter().all(|time| number::field(time).is_some()) || !prefix.is_ascii() {
        true => &[],
        false => prefix,
    }
}

/// The sum of all bytes, where those of the sum count as spaces; and the same of signed bytes, as some have computed it.
fn sums(block: &[u8; BLOCK]) -> [i64; 2] {
    let bytes = || {
        let (before, rest) = block.split_at(148);
        before.iter().chain(&[b' '; 8]).chain(&rest[8..])
    };
    [
        bytes().map(|byte| i64::from(*byte)).sum(),
        bytes().map(|byte| i64::from(byte.cast_signed())).sum(),
    ]
}
