//! Ethernet frames as the network programs exchange them with the host.

/// Destination, source, type.
pub const HEADER_BYTES: usize = 14;
/// Largest frame without a VLAN tag.
pub const MAX_FRAME_BYTES: usize = 1514;
/// Smallest frame, padding included.
pub const MIN_FRAME_BYTES: usize = 60;
/// IEEE 802 local experimental type 1, which no protocol of the host answers.
pub const TYPE: [u8; 2] = [0x88, 0xb5];
/// Payload of the frame that ends a program.
pub const QUIT: &[u8] = b"quit";

/// A MAC address.
pub type Mac = [u8; 6];

/// Writes the header of a frame from `source` to everyone.
pub fn write_broadcast_header(frame: &mut [u8], source: Mac) {
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&source);
    frame[12..14].copy_from_slice(&TYPE);
}

/// Is the frame of our type? The host's own traffic on the link (IPv6 router solicitations
/// and the like) is not.
pub fn is_ours(frame: &[u8]) -> bool {
    frame.len() >= HEADER_BYTES && frame[12..14] == TYPE
}

/// Does the frame tell the program to end?
pub fn is_quit(frame: &[u8]) -> bool {
    is_ours(frame) && frame[HEADER_BYTES..].starts_with(QUIT)
}

/// Sends the frame back where it came from.
pub fn turn_around(frame: &mut [u8], own: Mac) {
    frame.copy_within(6..12, 0);
    frame[6..12].copy_from_slice(&own);
}
