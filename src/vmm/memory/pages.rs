//! Pages of guest RAM, by their place where regions lie behind each other.

use super::PAGE_BYTES;
use std::ops::Range;

/// A part of guest RAM, by its place where regions lie behind each other.
pub type Part = Range<u64>;

/// Those of one word.
const WORD_BYTES: u64 = 64 * PAGE_BYTES;

/// Some of the pages of a guest's RAM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    words: Vec<u64>,
}

impl Pages {
    /// None, of RAM of that size.
    pub fn none_of(ram_bytes: u64) -> Self {
        let words = vec![0; ram_bytes.div_ceil(WORD_BYTES) as usize];
        Self { words }
    }

    /// Adds those of a part, which is whole pages. What is not in RAM is left out.
    pub fn add(&mut self, part: &Part) {
        self.change(part, |word, bit| *word |= bit);
    }

    /// Takes those of a part out.
    pub fn remove(&mut self, part: &Part) {
        self.change(part, |word, bit| *word &= !bit);
    }

    fn change(&mut self, part: &Part, change: impl Fn(&mut u64, u64)) {
        for page in part.start / PAGE_BYTES..part.end.div_ceil(PAGE_BYTES) {
            if let Some(word) = self.words.get_mut((page / 64) as usize) {
                change(word, 1 << (page % 64));
            }
        }
    }

    /// How many they are.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|it| u64::from(it.count_ones())).sum()
    }

    /// Those that lie behind each other as one, in their order.
    pub fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        self.parts_in(0..self.words.len() as u64 * WORD_BYTES)
    }

    /// The same of those in a part, which is whole pages.
    pub fn parts_in(&self, part: Part) -> impl Iterator<Item = Part> + '_ {
        let (mut page, end) = (part.start / PAGE_BYTES, part.end / PAGE_BYTES);
        std::iter::from_fn(move || {
            let first = self.next(page, end, true)?;
            page = self.next(first, end, false).unwrap_or(end);
            Some(first * PAGE_BYTES..page * PAGE_BYTES)
        })
    }

    /// The first page of some that is among them, or that is not.
    fn next(&self, mut page: u64, end: u64, is_one: bool) -> Option<u64> {
        while page < end {
            let word = self.words.get((page / 64) as usize).copied().unwrap_or(0);
            let wanted = if is_one { word } else { !word } >> (page % 64);
            if wanted != 0 {
                return Some(page + u64::from(wanted.trailing_zeros())).filter(|it| *it < end);
            }
            page = (page / 64 + 1) * 64;
        }
        None
    }

    /// A bit for each page of RAM, in whole words.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|it| it.to_le_bytes()).collect()
    }

    /// How many bytes those are.
    pub fn map_bytes(ram_bytes: u64) -> u64 {
        8 * ram_bytes.div_ceil(WORD_BYTES)
    }

    /// Those of which somebody says so. None if some are not in RAM of that size.
    pub fn of_bytes(ram_bytes: u64, bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks();
        let words = words.iter().map(|it| u64::from_le_bytes(*it)).collect();
        let pages = Self { words };
        let is_long = rest.is_empty() && bytes.len() as u64 == Self::map_bytes(ram_bytes);
        let last = pages.words.len() as u64 * WORD_BYTES;
        let is_inside = is_long && pages.parts_in(ram_bytes..last).next().is_none();
        is_inside.then_some(pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_in_their_order() {
        const RAM: u64 = 200 * PAGE_BYTES;
        let mut pages = Pages::none_of(RAM);
        assert_eq!(pages.parts().next(), None);
        for (start, end) in [(3, 4), (62, 66), (4, 5), (127, 128), (128, 193), (199, 200)] {
            pages.add(&(start * PAGE_BYTES..end * PAGE_BYTES));
        }
        let told = |parts: Vec<Part>| -> Vec<_> {
            let page = |it: u64| it / PAGE_BYTES;
            let parts = parts.iter();
            parts.map(|it| (page(it.start), page(it.end))).collect()
        };
        let all = [(3, 5), (62, 66), (127, 193), (199, 200)];
        assert_eq!(told(pages.parts().collect()), all);
        assert_eq!(pages.count(), 2 + 4 + 66 + 1);
        let some = pages.parts_in(4 * PAGE_BYTES..130 * PAGE_BYTES);
        assert_eq!(told(some.collect()), [(4, 5), (62, 66), (127, 130)]);
        let bytes = pages.to_bytes();
        assert_eq!(bytes.len() as u64, Pages::map_bytes(RAM));
        assert_eq!(Pages::of_bytes(RAM, &bytes), Some(pages));
        let mut fewer = Pages::of_bytes(RAM, &bytes).unwrap();
        fewer.remove(&(64 * PAGE_BYTES..300 * PAGE_BYTES));
        assert_eq!(told(fewer.parts().collect()), [(3, 5), (62, 64)]);
        // One behind the end, and another length.
        assert_eq!(Pages::of_bytes(RAM - PAGE_BYTES, &bytes), None);
        assert_eq!(Pages::of_bytes(RAM, &bytes[..24]), None);
        assert_eq!(Pages::of_bytes(RAM, &[0; 40]), None);
        let mut all = Pages::none_of(RAM);
        all.add(&(0..RAM));
        assert_eq!(told(all.parts().collect()), [(0, 200)]);
        assert_eq!(Pages::of_bytes(RAM, &all.to_bytes()), Some(all));
    }
}
