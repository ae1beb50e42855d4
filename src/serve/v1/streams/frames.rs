//! What goes over a connection that was upgraded: frames of a byte that says what, three of zeros, four with the length (big
//! endian), and as many more. Those of outputs are docker's.

use kvmlet_spec::ConsoleSize;

/// Before each.
const HEADER: usize = 8;
/// No client sends longer ones, with what is before them.
pub const LONGEST: usize = 64 << 10;

/// Input; without any, its end.
const INPUT: u8 = 0;
/// Standard output, and of the guest's terminal all.
pub const STDOUT: u8 = 1;
/// Standard error.
pub const STDERR: u8 = 2;
/// The terminal's size: columns and rows, two bytes each (big endian).
const RESIZE: u8 = 3;
/// A signal's number, a byte.
const SIGNAL: u8 = 4;
/// How it has ended, JSON: the last one.
pub const ENDED: u8 = 5;
/// Why nobody knows, JSON: the last one.
pub const PROBLEM: u8 = 6;

/// One that a client sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// Input for the program.
    Input(Vec<u8>),
    /// There is no more.
    EndInput,
    /// The terminal's size is another one.
    Resize(ConsoleSize),
    /// The program gets a signal.
    Signal(u8),
}

/// Takes the first one out of what has come; none while it is incomplete.
pub fn take(bytes: &mut Vec<u8>) -> Result<Option<Frame>, String> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let [kind, zeros @ .., a, b, c, d] = *header;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if zeros != [0; 3] || length > LONGEST - HEADER {
        return Err(format!(
            "a frame has three zeros, and {} bytes at most",
            LONGEST - HEADER
        ));
    }
    let Some(content) = rest.get(..length) else {
        return Ok(None);
    };
    let frame = match (kind, content) {
        (INPUT, []) => Frame::EndInput,
        (INPUT, content) => Frame::Input(content.into()),
        (RESIZE, [a, b, c, d]) => Frame::Resize(ConsoleSize {
            columns: u16::from_be_bytes([*a, *b]),
            rows: u16::from_be_bytes([*c, *d]),
        }),
        (SIGNAL, [number @ 1..=64]) => Frame::Signal(*number),
        (RESIZE, _) => return Err("a size has four bytes".into()),
        (SIGNAL, _) => return Err("a signal is one byte, 1 to 64".into()),
        (kind, _) => return Err(format!("no client sends a frame of kind {kind}")),
    };
    bytes.drain(..HEADER + length);
    Ok(Some(frame))
}

/// One that a client is told.
pub fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    // A part of what a guest has sent in one frame, or a few words.
    let length = (content.len() as u32).to_be_bytes();
    let header = [[kind, 0, 0, 0], length].concat();
    [&header, content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_in_pieces() {
        let size = ConsoleSize {
            columns: 258,
            rows: 3,
        };
        let mut wire = frame(INPUT, b"ab");
        wire.extend(frame(RESIZE, &[1, 2, 0, 3]));
        wire.extend(frame(SIGNAL, &[15]));
        wire.extend(frame(INPUT, b""));
        let (mut bytes, mut all) = (Vec::new(), Vec::new());
        for byte in wire {
            bytes.push(byte);
            all.extend(take(&mut bytes).unwrap());
        }
        let wanted = [
            Frame::Input(b"ab".into()),
            Frame::Resize(size),
            Frame::Signal(15),
            Frame::EndInput,
        ];
        assert_eq!(all, wanted);
        assert!(bytes.is_empty());
    }

    #[test]
    fn what_no_client_sends_is_refused() {
        for bytes in [
            frame(STDOUT, b"x"),
            frame(9, b""),
            frame(RESIZE, b"abc"),
            frame(SIGNAL, &[0]),
            frame(SIGNAL, &[65]),
            frame(SIGNAL, &[1, 1]),
            vec![0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            vec![0, 1, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(take(&mut bytes.clone()).is_err(), "{bytes:?}");
        }
    }
}
