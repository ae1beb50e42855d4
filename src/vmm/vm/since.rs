//! Which pages of a VM's memory have changed since a snapshot, so that a later one has no more than these.

use super::error::Error;
use super::generation;
use crate::memory::Pages;
use crate::snapshot::SnapshotId;

/// What later snapshots of a VM can be the difference to, and what they are called.
#[derive(Debug)]
pub(super) struct Since {
    /// Random bytes of this VM, of which its snapshots' ids are made.
    own: SnapshotId,
    /// How many were given an id.
    count: u32,
    base: Option<Base>,
}

/// A whole snapshot, and what has changed since.
#[derive(Debug)]
pub(super) struct Base {
    /// It.
    pub id: SnapshotId,
    /// Pages that the kernel does not count as written to any more, and that differ all the same.
    pub changed: Pages,
}

impl Since {
    /// Of a VM that goes on from a snapshot, or boots. What differs from a file that memory is mapped from, the kernel knows.
    pub fn of(base: Option<SnapshotId>, ram_bytes: u64) -> Result<Self, Error> {
        let base = base.filter(|id| *id != SnapshotId::default());
        Ok(Self {
            own: generation::random()?,
            count: 0,
            base: base.map(|id| Base::of(id, ram_bytes)),
        })
    }

    /// The id of another snapshot.
    pub fn next_id(&mut self) -> SnapshotId {
        self.count += 1;
        let mut id = self.own;
        for (byte, count) in id.iter_mut().zip(self.count.to_le_bytes()) {
            *byte ^= count;
        }
        id
    }

    /// What is the difference to that snapshot? From here on nobody is told, until that is [known](Self::keep) again.
    pub fn take(&mut self, id: SnapshotId) -> Option<Base> {
        self.base.take_if(|base| base.id == id)
    }

    /// It is known, or none is.
    pub fn keep(&mut self, base: Option<Base>) {
        self.base = base;
    }
}

impl Base {
    /// One that has just been told.
    pub fn of(id: SnapshotId, ram_bytes: u64) -> Self {
        Self {
            id,
            changed: Pages::none_of(ram_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_known_by_its_id_alone() {
        let mut since = Since::of(Some([7; 16]), 1 << 20).unwrap();
        assert!(since.take([6; 16]).is_none());
        let base = since.take([7; 16]);
        assert!(since.take([7; 16]).is_none());
        since.keep(base);
        assert_eq!(since.take([7; 16]).unwrap().id, [7; 16]);
        // A file of an earlier kvmlet's has none.
        let mut nameless = Since::of(Some([0; 16]), 1 << 20).unwrap();
        assert!(nameless.take([0; 16]).is_none());
        let mut ids: Vec<_> = (0..300).map(|_| nameless.next_id()).collect();
        ids.extend([since.next_id(), [0; 16]]);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 302);
    }
}
