//! Numbers and texts in as few bytes as they take, for the store's own files.

/// What is being written.
#[derive(Debug, Default)]
pub struct Packed(pub Vec<u8>);

impl Packed {
    /// Seven bits in each byte, the lowest first; all but the last have the eighth.
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// A number that may be negative: small ones take few bytes, too.
    pub fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63) as u64);
    }

    /// The length, and the bytes.
    pub fn text(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

/// What is being read. `None` means always that it ends too early, or is not what it should be.
#[derive(Debug)]
pub struct Unpacked<'a>(pub &'a [u8]);

impl<'a> Unpacked<'a> {
    /// A number.
    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has one bit.
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// A number that fits into another type.
    pub fn small<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.number()?).ok()
    }

    /// A number that may be negative.
    pub fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// Bytes with their length in front.
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let length: usize = self.small()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }

    /// How many things follow that have at least a byte each.
    pub fn count(&mut self) -> Option<usize> {
        let count: usize = self.small()?;
        (count <= self.0.len()).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(number: u64, signed: i64, text: Vec<u8>) {
            let mut packed = Packed::default();
            packed.number(number);
            packed.signed(signed);
            packed.text(&text);
            let mut read = Unpacked(&packed.0);
            prop_assert_eq!(read.number(), Some(number));
            prop_assert_eq!(read.signed(), Some(signed));
            prop_assert_eq!(read.text(), Some(&text[..]));
            prop_assert_eq!(read.number(), None);
        }

        #[test]
        fn anything_can_be_read(bytes: Vec<u8>) {
            let mut read = Unpacked(&bytes);
            while read.number().is_some() && read.text().is_some() && read.count().is_some() {}
        }
    }

    #[test]
    fn small_numbers_take_a_byte_and_large_ones_fit() {
        for (number, length) in [(0, 1), (127, 1), (128, 2), (u64::MAX, 10)] {
            let mut packed = Packed::default();
            packed.number(number);
            assert_eq!(packed.0.len(), length);
        }
        let too_large = [0xff; 9].into_iter().chain([2]).collect::<Vec<u8>>();
        assert_eq!(Unpacked(&too_large).number(), None);
        assert_eq!(Unpacked(&[5, 0]).count(), None);
        assert_eq!(Unpacked(&[0x80]).number(), None);
    }
}
