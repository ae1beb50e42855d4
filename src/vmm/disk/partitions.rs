//! Partition tables: MBR, and GPT as UEFI 2.10 §5 has it. Only what stands in the first blocks is looked at.

/// How much of the beginning of a disk is looked at.
pub(super) const HEAD_BYTES: usize = 4096;
const SECTOR: u64 = 512;
/// Four entries of an MBR, and the signature behind them.
const MBR_ENTRIES: usize = 446;
const MBR_ENTRY_BYTES: usize = 16;
const MBR_SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// Where GPT has its header and, as every tool writes it, its entries.
const GPT_HEADER: usize = 512;
const GPT_ENTRIES: usize = 1024;
const GPT_ENTRY_BYTES: usize = 128;

/// How a disk is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// The PC's.
    Mbr,
    /// UEFI's.
    Gpt,
}

/// A part of a disk, as its table has it: it need not be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    /// From 1.
    pub number: usize,
    pub offset: u64,
    pub bytes: u64,
}

impl Scheme {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mbr => "MBR",
            Self::Gpt => "GPT",
        }
    }

    /// The table at the beginning of a disk, if there is one.
    pub(super) fn of_head(head: &[u8; HEAD_BYTES]) -> Option<(Self, Vec<Partition>)> {
        if head[GPT_HEADER..].starts_with(b"EFI PART") {
            let entries = head[GPT_ENTRIES..].chunks_exact(GPT_ENTRY_BYTES);
            return Some((Self::Gpt, (1..).zip(entries).filter_map(gpt).collect()));
        }
        let entries = &head[MBR_ENTRIES..MBR_ENTRIES + 4 * MBR_ENTRY_BYTES];
        let is_table = head[510..512] == MBR_SIGNATURE
            // Boot code of a file system has other bytes there.
            && entries.chunks_exact(MBR_ENTRY_BYTES).all(|entry| entry[0] & 0x7f == 0);
        let entries = (1..).zip(entries.chunks_exact(MBR_ENTRY_BYTES));
        let partitions: Vec<_> = entries.filter_map(mbr).collect();
        (is_table && !partitions.is_empty()).then_some((Self::Mbr, partitions))
    }
}

fn mbr((number, entry): (usize, &[u8])) -> Option<Partition> {
    let word =
        |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
    let (kind, first, sectors) = (entry[4], word(8), word(12));
    (kind != 0 && first != 0 && sectors != 0).then(|| Partition {
        number,
        offset: u64::from(first) * SECTOR,
        bytes: u64::from(sectors) * SECTOR,
    })
}

fn gpt((number, entry): (usize, &[u8])) -> Option<Partition> {
    let long = |at: usize| {
        let bytes = entry[at..at + 8].iter().rev();
        bytes.fold(0, |value: u64, byte| value << 8 | u64::from(*byte))
    };
    let (first, last) = (long(32), long(40));
    let sectors = last.checked_sub(first)?.checked_add(1)?;
    let is_used = entry[..16].iter().any(|byte| *byte != 0);
    is_used.then_some(Partition {
        number,
        offset: first.checked_mul(SECTOR)?,
        bytes: sectors.checked_mul(SECTOR)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mbr_has_partitions() {
        let mut head = [0; HEAD_BYTES];
        head[510..512].copy_from_slice(&MBR_SIGNATURE);
        assert_eq!(Scheme::of_head(&head), None, "none is used");
        let second = &mut head[446 + 16..];
        (second[0], second[4], second[9], second[13]) = (0x80, 0x83, 8, 1);
        let expected = Partition {
            number: 2,
            offset: 2048 * 512,
            bytes: 256 * 512,
        };
        assert_eq!(Scheme::of_head(&head), Some((Scheme::Mbr, vec![expected])));
        head[446] = 0x33;
        assert_eq!(Scheme::of_head(&head), None, "boot code");
    }

    #[test]
    fn a_gpt_comes_before_the_mbr_that_protects_it() {
        let mut head = [0; HEAD_BYTES];
        head[510..512].copy_from_slice(&MBR_SIGNATURE);
        (head[450], head[454], head[458]) = (0xee, 1, 255);
        head[512..520].copy_from_slice(b"EFI PART");
        let third = &mut head[1024 + 2 * 128..];
        (third[0], third[33], third[41], third[40]) = (1, 8, 8, 1);
        let expected = Partition {
            number: 3,
            offset: 2048 * 512,
            bytes: 1024,
        };
        assert_eq!(Scheme::of_head(&head), Some((Scheme::Gpt, vec![expected])));
    }
}
