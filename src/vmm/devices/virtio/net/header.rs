//! `virtio_net_hdr_v1`, what goes in front of every frame (virtio 1.2 §5.1.6), and the features it obeys.

use super::port::Offloads;

/// Size in bytes, with `num_buffers`.
pub(super) const BYTES: usize = 12;
/// The shortest frame: two addresses and a type.
pub(super) const ETHERNET_BYTES: usize = 14;
/// The longest frame: 64 KiB of IP with an Ethernet header and a VLAN tag.
pub(super) const LONGEST_FRAME: usize = ETHERNET_BYTES + 4 + (1 << 16);

/// Feature bits (§5.1.3).
pub(super) mod feature {
    pub const CSUM: u64 = 1 << 0;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    pub const MTU: u64 = 1 << 3;
    pub const MAC: u64 = 1 << 5;
    pub const GUEST_TSO4: u64 = 1 << 7;
    pub const GUEST_TSO6: u64 = 1 << 8;
    pub const GUEST_ECN: u64 = 1 << 9;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const HOST_TSO6: u64 = 1 << 12;
    pub const HOST_ECN: u64 = 1 << 13;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
    pub const CTRL_VQ: u64 = 1 << 17;
    pub const MQ: u64 = 1 << 22;
    /// Those by which a frame may be less than complete. (Without them GUEST_CSUM still lets a frame be told as checked.)
    pub const LEFT_UNDONE: u64 = CSUM
        | HOST_TSO4
        | HOST_TSO6
        | HOST_ECN
        | GUEST_TSO4
        | GUEST_TSO6
        | GUEST_ECN
        | CTRL_GUEST_OFFLOADS;
    /// Those that CTRL_GUEST_OFFLOADS can switch.
    pub const GUEST_OFFLOADS: u64 = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN;
}
use feature::*;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

const FLAGS: usize = 0;
const GSO_TYPE: usize = 1;
const HDR_LEN: usize = 2;
const GSO_SIZE: usize = 4;
const CSUM_START: usize = 6;
const CSUM_OFFSET: usize = 8;
const NUM_BUFFERS: usize = 10;

/// The features among `agreed` that stand on their own: what a feature needs must be there too (§5.1.3.1).
pub(super) fn usable(agreed: u64) -> u64 {
    let mut features = agreed;
    for (needed, dependent) in [
        (CSUM, HOST_TSO4 | HOST_TSO6),
        (HOST_TSO4 | HOST_TSO6, HOST_ECN),
        (GUEST_CSUM, GUEST_TSO4 | GUEST_TSO6),
        (GUEST_TSO4 | GUEST_TSO6, GUEST_ECN),
        (CTRL_VQ, MQ | CTRL_GUEST_OFFLOADS),
    ] {
        if features & needed == 0 {
            features &= !dependent;
        }
    }
    features
}

/// What these features allow in frames towards the guest.
pub(super) fn offloads(features: u64) -> Offloads {
    let features = usable(features);
    Offloads {
        checksum: features & GUEST_CSUM != 0,
        tso4: features & GUEST_TSO4 != 0,
        tso6: features & GUEST_TSO6 != 0,
        ecn: features & GUEST_ECN != 0,
    }
}

/// Checks the header of a frame from the guest and clears what only the other direction uses. `frame` is the
/// frame's size without the header.
///
/// # Errors
/// What is wrong; the frame cannot be sent then.
pub(super) fn check_transmit(
    header: &mut [u8; BYTES],
    frame: usize,
    features: u64,
) -> Result<(), &'static str> {
    if !(ETHERNET_BYTES..=LONGEST_FRAME).contains(&frame) {
        return Err("its size is not that of an Ethernet frame");
    }
    // §5.1.6.2.2: flags that are not known are ignored.
    header[FLAGS] &= NEEDS_CSUM;
    let needs_csum = header[FLAGS] != 0;
    let end = field(header, CSUM_START) + field(header, CSUM_OFFSET) + 2;
    if needs_csum && (features & CSUM == 0 || end > frame) {
        return Err("its checksum is nothing to fill in");
    }
    let allowed = match header[GSO_TYPE] & !GSO_ECN {
        GSO_NONE => header[GSO_TYPE] == GSO_NONE,
        GSO_TCPV4 => features & HOST_TSO4 != 0,
        GSO_TCPV6 => features & HOST_TSO6 != 0,
        _ => false,
    };
    let segmented = header[GSO_TYPE] != GSO_NONE;
    let ecn = header[GSO_TYPE] & GSO_ECN != 0;
    if !allowed
        || ecn && features & HOST_ECN == 0
        || segmented && (!needs_csum || field(header, GSO_SIZE) == 0)
    {
        return Err("it asks for a segmentation that was not agreed upon");
    }
    // A hint that need not be right (§5.1.6.2.2), but the host refuses one beyond the frame.
    let hint = field(header, HDR_LEN).min(frame);
    set_field(header, HDR_LEN, hint as u16);
    set_field(header, NUM_BUFFERS, 0);
    Ok(())
}

/// Makes the header of a frame for the guest one that it has agreed to (§5.1.6.4.1), or says that the frame
/// is not for it: one that waited from before a reset can be so.
pub(super) fn prepare_receive(header: &mut [u8; BYTES], buffers: u16, features: u64) -> bool {
    header[FLAGS] &= NEEDS_CSUM | DATA_VALID;
    if features & GUEST_CSUM == 0 {
        if header[FLAGS] & NEEDS_CSUM != 0 {
            return false;
        }
        header[FLAGS] = 0;
    }
    let agreed = match header[GSO_TYPE] & !GSO_ECN {
        GSO_NONE => true,
        GSO_TCPV4 => features & GUEST_TSO4 != 0,
        GSO_TCPV6 => features & GUEST_TSO6 != 0,
        _ => false,
    };
    set_field(header, NUM_BUFFERS, buffers);
    agreed && (header[GSO_TYPE] & GSO_ECN == 0 || features & GUEST_ECN != 0)
}

fn field(header: &[u8; BYTES], at: usize) -> usize {
    u16::from_le_bytes([header[at], header[at + 1]]).into()
}

fn set_field(header: &mut [u8; BYTES], at: usize, value: u16) {
    header[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN | GUEST_OFFLOADS;

    #[test]
    fn what_the_guest_sends_is_checked() {
        // flags, type, hdr_len, gso_size, csum_start, csum_offset, frame, features
        type Case = (u8, u8, u16, u16, u16, u16, usize, u64);
        let cases: [(bool, Case); 16] = [
            (true, (0, 0, 0, 0, 0, 0, 60, 0)),
            (true, (0, 0, 999, 0, 999, 9, 60, 0)),
            (true, (2, 0, 0, 0, 0, 0, 60, 0)),
            (false, (0, 0, 0, 0, 0, 0, 13, ALL)),
            (false, (0, 0, 0, 0, 0, 0, LONGEST_FRAME + 1, ALL)),
            (true, (1, 0, 0, 0, 34, 16, 52, ALL)),
            (false, (1, 0, 0, 0, 34, 17, 52, ALL)),
            (false, (1, 0, 0, 0, 0xffff, 0xffff, 60, ALL)),
            (false, (1, 0, 0, 0, 34, 16, 60, ALL & !CSUM)),
            (true, (1, 1, 54, 1448, 34, 16, 9000, ALL)),
            (true, (1, 0x84, 54, 1448, 34, 16, 9000, ALL)),
            (false, (1, 0x84, 54, 1448, 34, 16, 9000, ALL & !HOST_ECN)),
            (false, (1, 1, 54, 0, 34, 16, 9000, ALL)),
            (false, (0, 1, 54, 1448, 34, 16, 9000, ALL)),
            (false, (1, 3, 54, 1448, 34, 16, 9000, ALL)),
            (false, (0, 0x80, 0, 0, 0, 0, 60, ALL)),
        ];
        for (fine, case) in cases {
            let (flags, kind, hdr_len, size, start, offset, frame, features) = case;
            let mut header = [0; BYTES];
            (header[FLAGS], header[GSO_TYPE]) = (flags, kind);
            for (at, value) in [
                (HDR_LEN, hdr_len),
                (GSO_SIZE, size),
                (CSUM_START, start),
                (CSUM_OFFSET, offset),
            ] {
                set_field(&mut header, at, value);
            }
            let result = check_transmit(&mut header, frame, features);
            assert_eq!(result.is_ok(), fine, "{case:?}: {result:?}");
            assert!(!fine || field(&header, HDR_LEN) <= frame);
        }
    }

    #[test]
    fn the_guest_gets_only_what_it_agreed_to() {
        let receive = |flags, kind, features| {
            let mut header = [0; BYTES];
            (header[FLAGS], header[GSO_TYPE]) = (flags, kind);
            prepare_receive(&mut header, 3, features)
                .then_some((header[FLAGS], field(&header, NUM_BUFFERS)))
        };
        assert_eq!(receive(1, 1, ALL), Some((1, 3)));
        assert_eq!(receive(2, 0, GUEST_CSUM), Some((2, 3)));
        assert_eq!(receive(2, 0, 0), Some((0, 3)));
        assert_eq!(receive(1, 0, 0), None);
        assert_eq!(receive(1, 1, ALL & !GUEST_TSO4), None);
        assert_eq!(receive(1, 0x81, ALL & !GUEST_ECN), None);
    }

    #[test]
    fn features_without_what_they_need_do_not_count() {
        assert_eq!(
            usable(HOST_TSO4 | HOST_ECN | GUEST_TSO6 | GUEST_ECN | MQ),
            0
        );
        assert_eq!(usable(ALL), ALL);
        assert_eq!(offloads(GUEST_TSO4), Offloads::default());
    }
}
