//! The end of a handshake that older versions of passt leave out.
//!
//! A client has come to a published port, and the guest's SYN+ACK has been sent to passt. That of Debian 12 acknowledges it
//! with the client's first data only, so a service that speaks first (of mail, or a database) never sees its client.
//! (passt of 2024 and later does it at once; a second acknowledgement changes nothing.)

use super::packet::{ETHERNET, IP, TCP};
use crate::net::probe::checksum;

/// Size of a header without options, in bytes (RFC 9293, 3.1).
const HEADER: usize = 20;
/// Of the packet, and where its parts begin in the frame.
const FRAME: usize = ETHERNET + IP + HEADER;
const SEGMENT: usize = ETHERNET + IP;
const FLAGS: usize = 13;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
/// How much the guest may send before passt says how much it takes, in units that passt has chosen (256 bytes). What is
/// too much is sent again.
const WINDOW: u16 = 512;

/// A frame with a segment that carries nothing.
pub(super) type Acknowledgement = [u8; FRAME];

/// What acknowledges a SYN+ACK of the guest's; nothing if the frame is none. The frame has been found to be a packet.
pub(super) fn acknowledgement(frame: &[u8]) -> Option<Acknowledgement> {
    let header = usize::from(frame.get(ETHERNET)? & 0xf) * 4;
    let segment = frame.get(ETHERNET + header..)?.first_chunk::<HEADER>()?;
    let is_syn_ack = frame.get(ETHERNET + 9) == Some(&TCP) && segment[FLAGS] & 0x17 == SYN_ACK;
    is_syn_ack.then_some(())?;
    let [a, b, c, d] = [segment[4], segment[5], segment[6], segment[7]];
    let next = u32::from_be_bytes([a, b, c, d]).wrapping_add(1);
    let mut answer = [0; FRAME];
    let mut put = |at: usize, bytes: &[u8]| answer[at..at + bytes.len()].copy_from_slice(bytes);
    // Back to where it comes from.
    put(0, frame.get(6..12)?);
    put(6, frame.get(..6)?);
    put(12, &[0x08, 0x00, 0x45, 0]);
    put(ETHERNET + 2, &((IP + HEADER) as u16).to_be_bytes());
    put(ETHERNET + 6, &[0x40, 0, 64, TCP]);
    put(ETHERNET + 12, frame.get(ETHERNET + 16..ETHERNET + 20)?);
    put(ETHERNET + 16, frame.get(ETHERNET + 12..ETHERNET + 16)?);
    put(SEGMENT, &segment[2..4]);
    put(SEGMENT + 2, &segment[..2]);
    put(SEGMENT + 4, &segment[8..12]);
    put(SEGMENT + 8, &next.to_be_bytes());
    put(SEGMENT + 12, &[(HEADER as u8 / 4) << 4, ACK]);
    put(SEGMENT + 14, &WINDOW.to_be_bytes());
    let sum = checksum(&answer[ETHERNET..SEGMENT]);
    answer[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
    let mut summed = [0; 12 + HEADER];
    summed[..8].copy_from_slice(&answer[ETHERNET + 12..SEGMENT]);
    summed[9] = TCP;
    summed[11] = HEADER as u8;
    summed[12..].copy_from_slice(&answer[SEGMENT..]);
    let sum = checksum(&summed);
    answer[SEGMENT + 16..SEGMENT + 18].copy_from_slice(&sum.to_be_bytes());
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_ended_as_a_client_would() {
        let mut frame = vec![1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 8, 0, 0x46, 0, 0, 44];
        frame.extend([
            0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 198, 51, 100, 1, 0, 0, 0, 0,
        ]);
        frame.extend([
            0, 80, 0x12, 0x34, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 9, 0x50, 0x12, 1, 1, 0, 0, 0, 0,
        ]);
        let answer = acknowledgement(&frame).unwrap();
        assert_eq!(answer[..12], [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]);
        assert_eq!(answer[26..34], [198, 51, 100, 1, 10, 0, 0, 2]);
        assert_eq!(
            answer[34..48],
            [0x12, 0x34, 0, 80, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 0x10]
        );
        // With its checksum, a header sums up to nothing.
        assert_eq!(checksum(&answer[14..34]), 0);
        let pseudo = [&answer[26..34], &[0, 6, 0, 20], &answer[34..]].concat();
        assert_eq!(checksum(&pseudo), 0);
        for flags in [0x02, 0x10, 0x18, 0x14, 0x16, 0x13] {
            frame[14 + 24 + 13] = flags;
            assert_eq!(acknowledgement(&frame), None, "{flags:x}");
        }
        frame[14 + 24 + 13] = 0x12;
        assert!(acknowledgement(&frame).is_some());
        for bytes in 0..frame.len() {
            assert_eq!(acknowledgement(&frame[..bytes]), None, "{bytes}");
        }
        frame[23] = 17;
        assert_eq!(acknowledgement(&frame), None);
    }
}
