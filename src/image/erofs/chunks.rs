//! The map of a file with holes: equal chunks, each with the block that it begins at.

use super::format::NULL_ADDRESS;
use crate::tree::Content;

/// How a file is cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// A chunk has two to the power of this many blocks.
    bits: u32,
    count: u32,
}

impl Chunks {
    /// The longest chunks at whose ends all runs begin and end.
    pub fn of(content: &Content) -> Self {
        let blocks = content.blocks();
        // What is at the end of the file is at the end of a chunk, even where that is longer.
        let ends = content.runs().iter().map(|run| run.end() as u32);
        let inner = ends.filter(|end| *end < blocks);
        let seams = content.runs().iter().map(|run| run.at).chain(inner);
        let all = seams.fold(0, |all, seam| all | seam);
        let whole = blocks.next_power_of_two().trailing_zeros();
        let bits = all.trailing_zeros().min(whole);
        let count = u64::from(blocks).div_ceil(1 << bits) as u32;
        Self { bits, count }
    }

    /// What the inode says of the map.
    pub fn form(self) -> u32 {
        self.bits
    }

    /// The length of the map, in bytes.
    pub fn length(self) -> u64 {
        u64::from(self.count) * 4
    }

    /// The map, where `address` tells where a blob's block is in the image.
    pub fn encode(self, content: &Content, address: impl Fn(u16, u32) -> u32) -> Vec<u8> {
        let mut map = Vec::with_capacity(self.count as usize * 4);
        let mut runs = content.runs().iter().peekable();
        for chunk in 0..self.count {
            let at = chunk << self.bits;
            while runs.next_if(|run| run.end() <= u64::from(at)).is_some() {}
            let found = runs.peek().filter(|run| run.at <= at);
            let block = found.map_or(NULL_ADDRESS, |run| {
                address(run.blob, run.block + (at - run.at))
            });
            map.extend_from_slice(&block.to_le_bytes());
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{BLOCK, Run};

    fn map(size: u64, runs: &[(u32, u32, u32)]) -> (u32, Vec<u32>) {
        let runs = runs.iter().map(|(at, block, blocks)| Run {
            at: *at,
            blob: 0,
            block: *block,
            blocks: *blocks,
        });
        let content = Content::new(size, runs.collect()).unwrap();
        let chunks = Chunks::of(&content);
        let map = chunks.encode(&content, |_, block| block + 100);
        assert_eq!(map.len() as u64, chunks.length());
        let words = map
            .as_chunks()
            .0
            .iter()
            .map(|word| u32::from_le_bytes(*word));
        (chunks.form(), words.collect())
    }

    #[test]
    fn chunks_are_as_long_as_holes_let_them() {
        const NONE: u32 = NULL_ADDRESS;
        assert_eq!(map(9 * BLOCK, &[]), (4, vec![NONE]));
        assert_eq!(map(8 << 40, &[]), (31, vec![NONE]));
        assert_eq!(
            map(8 * BLOCK, &[(4, 7, 2)]),
            (1, vec![NONE, NONE, 107, NONE])
        );
        assert_eq!(map(8 * BLOCK - 1, &[(4, 7, 4)]), (2, vec![NONE, 107]));
        assert_eq!(map(7 * BLOCK, &[(4, 7, 3)]), (2, vec![NONE, 107]));
        assert_eq!(
            map(3 * BLOCK, &[(0, 7, 1), (2, 8, 1)]),
            (0, vec![107, NONE, 108])
        );
        // Two runs without a hole between them, as from two blobs.
        assert_eq!(map(4 * BLOCK, &[(0, 7, 2), (2, 1, 2)]), (1, vec![107, 101]));
    }
}
