//! Port and memory-mapped I/O: from an address to a device.

use super::Action;
use kvmlet_sys::thread::lock;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Registers that a guest reads and writes. Accesses are 1, 2, 4 or 8 bytes; `offset` counts from the
/// device's first register.
pub trait Device: Send {
    /// Fills `data` with what the guest reads.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Takes what the guest writes.
    fn write(&mut self, offset: u64, data: &[u8]) -> Action;
}

/// Two devices want the same addresses: a bug in the address map.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("bus addresses {new:#x?} overlap {old:#x?}")]
pub struct Overlap {
    new: Range<u64>,
    old: Range<u64>,
}

struct Claim {
    range: Range<u64>,
    device: Arc<Mutex<dyn Device>>,
}

/// A set of devices at addresses that do not overlap; complete before the first vCPU runs, constant after.
#[derive(Default)]
pub struct Bus(Vec<Claim>);

impl Bus {
    /// Puts a device at `start`.
    ///
    /// # Errors
    /// When another device is there already.
    pub fn insert(
        &mut self,
        start: u64,
        bytes: u64,
        device: Arc<Mutex<dyn Device>>,
    ) -> Result<(), Overlap> {
        let range = start..start + bytes;
        let index = self
            .0
            .partition_point(|claim| claim.range.start < range.start);
        let neighbours = self.0[index.saturating_sub(1)..].iter().take(2);
        for old in neighbours.map(|claim| &claim.range) {
            if old.start < range.end && range.start < old.end {
                return Err(Overlap {
                    new: range,
                    old: old.clone(),
                });
            }
        }
        self.0.insert(index, Claim { range, device });
        Ok(())
    }

    /// Reads; where no device is, all bits are one, as on a bus that nobody drives.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((claim, offset)) => lock(&claim.device).read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes; where no device is, nothing happens.
    pub fn write(&self, address: u64, data: &[u8]) -> Action {
        match self.find(address, data.len()) {
            Some((claim, offset)) => lock(&claim.device).write(offset, data),
            None => Action::None,
        }
    }

    /// An access belongs to a device only if all of it does.
    fn find(&self, address: u64, bytes: usize) -> Option<(&Claim, u64)> {
        let index = self.0.partition_point(|claim| claim.range.start <= address);
        let claim = &self.0[index.checked_sub(1)?];
        let end = address.checked_add(bytes as u64)?;
        (end <= claim.range.end).then(|| (claim, address - claim.range.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads as its offset, and asks for a reset when written to.
    struct Echo;

    impl Device for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }

        fn write(&mut self, _offset: u64, _data: &[u8]) -> Action {
            Action::Reset
        }
    }

    fn bus(ranges: &[(u64, u64)]) -> Result<Bus, Overlap> {
        let mut bus = Bus::default();
        for (start, bytes) in ranges {
            bus.insert(*start, *bytes, Arc::new(Mutex::new(Echo)))?;
        }
        Ok(bus)
    }

    #[test]
    fn accesses_reach_the_device_that_claims_all_of_them() {
        let bus = bus(&[(0x20, 4), (0x10, 8)]).unwrap();
        let read = |address, bytes: usize| {
            let mut data = vec![0; bytes];
            bus.read(address, &mut data);
            data
        };
        assert_eq!(read(0x17, 1), [7]);
        assert_eq!(read(0x20, 4), [0; 4]);
        for (address, bytes) in [
            (0x0f, 1),
            (0x18, 1),
            (0x17, 2),
            (0x22, 4),
            (0x24, 1),
            (u64::MAX, 8),
        ] {
            assert_eq!(read(address, bytes), vec![0xff; bytes], "{address:#x}");
            assert_eq!(bus.write(address, &vec![0; bytes]), Action::None);
        }
        assert_eq!(bus.write(0x23, &[0]), Action::Reset);
    }

    #[test]
    fn overlaps_are_refused() {
        for (start, bytes) in [(0x0f, 2), (0x10, 8), (0x17, 1), (0x12, 2), (0x0, 0x100)] {
            assert!(
                bus(&[(0x10, 8), (0x40, 8), (start, bytes)]).is_err(),
                "{start:#x}"
            );
        }
        assert!(bus(&[(0x10, 8), (0x18, 8), (0x8, 8)]).is_ok());
    }
}
