//! A function's configuration space: 256 bytes, of which a driver changes some bits.

/// Size of a function's registers, all of which one base address register places; a power of two.
pub const BAR_BYTES: u64 = 0x8000;

/// Bytes of the space.
const BYTES: usize = 256;

// Offsets of the header (§6.1, type 0).
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CLASS: usize = 0x09;
const HEADER_TYPE: usize = 0x0e;
const BAR: usize = 0x10;
const SUBSYSTEM: usize = 0x2c;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
/// Where capabilities begin, behind the header.
const FIRST_CAPABILITY: usize = 0x40;

/// Command register: registers are there, the function may reach memory, and no interrupt lines.
const MEMORY: u8 = 1 << 1;
const MASTER: u8 = 1 << 2;
const NO_LINE: u8 = 1 << 2;
/// Status register: there are capabilities.
const HAS_CAPABILITIES: u8 = 1 << 4;
/// Header type: there are functions beside this one.
const MANY_FUNCTIONS: u8 = 1 << 7;

/// A host bridge as QEMU's generic one is known.
const BRIDGE: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0008,
    class: 0x06_0000,
};

/// What a function is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Whose device it is.
    pub vendor: u16,
    /// Which one.
    pub device: u16,
    /// Class, subclass and programming interface, one byte each.
    pub class: u32,
}

/// The space.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; BYTES],
    /// Bits that a driver changes.
    writable: [u8; BYTES],
    next: usize,
    last_link: usize,
}

impl ConfigSpace {
    fn of(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; BYTES],
            writable: [0; BYTES],
            next: FIRST_CAPABILITY,
            last_link: CAPABILITIES,
        };
        let Identity {
            vendor,
            device,
            class,
        } = identity;
        space.put(0, &vendor.to_le_bytes());
        space.put(2, &device.to_le_bytes());
        space.put(REVISION, &[1]);
        space.put(CLASS, &class.to_le_bytes()[..3]);
        space.put(SUBSYSTEM, &vendor.to_le_bytes());
        space.put(SUBSYSTEM + 2, &device.to_le_bytes());
        space
    }

    /// That of the bridge between processors and the bus.
    pub(super) fn of_bridge() -> Self {
        Self::of(BRIDGE)
    }

    /// That of a function with registers, which are at an address and switched off at first.
    pub fn of_function(identity: Identity, place: u32) -> Self {
        let mut space = Self::of(identity);
        space.put(HEADER_TYPE, &[MANY_FUNCTIONS]);
        space.put(BAR, &place.to_le_bytes());
        space.allow(COMMAND, &[MEMORY | MASTER, NO_LINE]);
        space.allow(BAR, &(!(BAR_BYTES as u32 - 1)).to_le_bytes());
        space.allow(INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Adds a capability: its number, and what follows the link. Returns its offset. They have to fit.
    pub fn add_capability(&mut self, id: u8, content: &[u8]) -> usize {
        let at = self.next;
        self.put(STATUS, &[HAS_CAPABILITIES]);
        self.put(self.last_link, &[at as u8]);
        self.put(at, &[id, 0]);
        self.put(at + 2, content);
        self.last_link = at + 1;
        self.next = (at + 2 + content.len()).next_multiple_of(4);
        at
    }

    /// Has a driver change bits, from that offset on.
    pub fn allow(&mut self, offset: usize, bits: &[u8]) {
        self.writable[offset..offset + bits.len()].copy_from_slice(bits);
    }

    /// Sets bytes, whoever may change them.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// What a driver reads; behind the space there are zeros.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        for (n, byte) in data.iter_mut().enumerate() {
            *byte = self.bytes.get(offset + n).copied().unwrap_or(0);
        }
    }

    /// What a driver writes, as far as it may.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        for (n, value) in data.iter().enumerate() {
            let (Some(byte), Some(mask)) = (
                self.bytes.get_mut(offset + n),
                self.writable.get(offset + n),
            ) else {
                return;
            };
            *byte = *byte & !mask | value & mask;
        }
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8; BYTES] {
        &self.bytes
    }

    /// A number of 32 bits in it.
    pub fn word(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Where the registers are, if a driver has switched them on.
    pub fn place(&self) -> Option<u64> {
        (self.bytes[COMMAND] & MEMORY != 0).then(|| self.word(BAR).into())
    }
}
