//! Packets: a header, and for data what follows it (virtio 1.2 §5.10.6).
//!
//! Where each field of a header lies is for the `virtio-vsock` crate to know. Its packets are not used beyond that: they
//! take a chain of one or two descriptors, and Linux sends data that it has not copied (MSG_ZEROCOPY) in any number.

use crate::devices::virtio::{Broken, Chain};
use crate::memory::GuestRam;
use virtio_vsock::packet::{PKT_HEADER_SIZE, VsockPacket};

/// Size of a header.
pub(super) const HEADER_BYTES: usize = PKT_HEADER_SIZE;
/// The most data that one packet to the guest has: Linux takes no more (`VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`).
pub(super) const LARGEST_DATA: usize = 64 << 10;

/// The host's address (§5.10.4: 2 is VMADDR_CID_HOST).
pub(super) const HOST_CID: u64 = 2;
/// The only type of socket that is offered (§5.10.6).
pub(super) const STREAM: u16 = 1;

/// What a packet is about (§5.10.6, `enum virtio_vsock_op`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Operation {
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,
    CreditUpdate = 6,
    CreditRequest = 7,
}

impl Operation {
    const ALL: [Self; 7] = [
        Self::Request,
        Self::Response,
        Self::Reset,
        Self::Shutdown,
        Self::Data,
        Self::CreditUpdate,
        Self::CreditRequest,
    ];

    /// That of a header; none for a number that means nothing.
    pub fn of(header: &Header) -> Option<Self> {
        (Self::ALL.into_iter()).find(|operation| *operation as u16 == header.operation)
    }
}

/// What a peer will not do any more (§5.10.6.5, VIRTIO_VSOCK_SHUTDOWN_F_*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Closed {
    /// It takes no more data.
    pub receiving: bool,
    /// It sends no more data.
    pub sending: bool,
}

impl Closed {
    pub fn from_flags(flags: u32) -> Self {
        Self {
            receiving: flags & 1 != 0,
            sending: flags & 2 != 0,
        }
    }

    pub fn flags(self) -> u32 {
        u32::from(self.receiving) | u32::from(self.sending) << 1
    }

    /// Both: what has been said before holds (§5.10.6.5).
    pub fn and(self, other: Self) -> Self {
        Self {
            receiving: self.receiving | other.receiving,
            sending: self.sending | other.sending,
        }
    }

    pub fn is_all(self) -> bool {
        self.receiving && self.sending
    }
}

/// The header of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    /// Bytes of data behind it.
    pub len: u32,
    pub socket_type: u16,
    pub operation: u16,
    pub flags: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

impl Header {
    /// The header at the start of what a driver sends.
    pub fn read(memory: &GuestRam, chain: &Chain) -> Result<Self, Broken> {
        if !chain.writable().is_empty() {
            return Err(Broken::Request("a packet to send is in a writable buffer"));
        }
        // A copy: what is checked is what is used.
        let mut bytes = [0; HEADER_BYTES];
        match chain.read(memory, 0, &mut bytes)? {
            HEADER_BYTES => Self::parse(bytes),
            _ => Err(Broken::Request(
                "a packet to send is shorter than its header",
            )),
        }
    }

    pub fn parse(bytes: [u8; HEADER_BYTES]) -> Result<Self, Broken> {
        let mut room = bytes;
        with_packet(&mut room, |packet| {
            packet.set_header_from_raw(&bytes)?;
            Ok(Self {
                src_cid: packet.src_cid(),
                dst_cid: packet.dst_cid(),
                src_port: packet.src_port(),
                dst_port: packet.dst_port(),
                len: packet.len(),
                socket_type: packet.type_(),
                operation: packet.op(),
                flags: packet.flags(),
                buf_alloc: packet.buf_alloc(),
                fwd_cnt: packet.fwd_cnt(),
            })
        })
    }

    pub fn to_bytes(self) -> Result<[u8; HEADER_BYTES], Broken> {
        let mut bytes = [0; HEADER_BYTES];
        with_packet(&mut bytes, |packet| {
            packet
                .set_src_cid(self.src_cid)
                .set_dst_cid(self.dst_cid)
                .set_src_port(self.src_port)
                .set_dst_port(self.dst_port)
                .set_len(self.len)
                .set_type(self.socket_type)
                .set_op(self.operation)
                .set_flags(self.flags)
                .set_buf_alloc(self.buf_alloc)
                .set_fwd_cnt(self.fwd_cnt);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// The refusal of a packet from the guest with that address (§5.10.6.5).
    pub fn reset_of(self, guest_cid: u64) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: guest_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            // The guest looks for the socket by its type.
            socket_type: self.socket_type,
            operation: Operation::Reset as u16,
            ..Self::default()
        }
    }
}

type Packet<'a> = VsockPacket<'a, ()>;

/// Lends a header to the crate that knows its fields.
fn with_packet<T>(
    header: &mut [u8; HEADER_BYTES],
    work: impl FnOnce(&mut Packet<'_>) -> Result<T, virtio_vsock::packet::Error>,
) -> Result<T, Broken> {
    // SAFETY: the packet is gone before the header, which nobody else touches meanwhile.
    let mut packet = unsafe { Packet::new(header, None) }.map_err(wrong_size)?;
    work(&mut packet).map_err(wrong_size)
}

/// It is said of a header of another size, which there is none of.
fn wrong_size(_: virtio_vsock::packet::Error) -> Broken {
    Broken::Request("a header has a size that none has")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_the_layout_of_the_specification() {
        let header = Header {
            src_cid: 0x0102_0304_0506_0708,
            dst_cid: HOST_CID,
            src_port: 0x1112_1314,
            dst_port: 0x2122_2324,
            len: 0x3132_3334,
            socket_type: STREAM,
            operation: Operation::Data as u16,
            flags: 0x4142_4344,
            buf_alloc: 0x5152_5354,
            fwd_cnt: 0x6162_6364,
        };
        let bytes = header.to_bytes().unwrap();
        let fields: [&[u8]; 10] = [
            &[8, 7, 6, 5, 4, 3, 2, 1],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[0x14, 0x13, 0x12, 0x11],
            &[0x24, 0x23, 0x22, 0x21],
            &[0x34, 0x33, 0x32, 0x31],
            &[1, 0],
            &[5, 0],
            &[0x44, 0x43, 0x42, 0x41],
            &[0x54, 0x53, 0x52, 0x51],
            &[0x64, 0x63, 0x62, 0x61],
        ];
        assert_eq!(bytes[..], fields.concat());
        assert_eq!(Header::parse(bytes).unwrap(), header);
        assert_eq!(Operation::of(&header), Some(Operation::Data));
        for operation in [0, 8, 0xffff] {
            assert_eq!(
                Operation::of(&Header {
                    operation,
                    ..header
                }),
                None
            );
        }
    }
}
