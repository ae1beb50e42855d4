//! Numbers and lists as bytes: little-endian, of fixed widths, lists behind their length.

/// What reads as nothing that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled;

/// Something that is written as bytes and read again.
pub(super) trait Record: Sized {
    fn put(&self, to: &mut Vec<u8>);

    /// Takes as much from the front as was put there.
    fn take(from: &mut &[u8]) -> Result<Self, Garbled>;
}

/// Takes that many bytes.
pub(super) fn split<'a>(from: &mut &'a [u8], count: usize) -> Result<&'a [u8], Garbled> {
    let (taken, rest) = from.split_at_checked(count).ok_or(Garbled)?;
    *from = rest;
    Ok(taken)
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Record for $number {
            fn put(&self, to: &mut Vec<u8>) {
                to.extend(self.to_le_bytes());
            }

            fn take(from: &mut &[u8]) -> Result<Self, Garbled> {
                let bytes = split(from, size_of::<Self>())?;
                bytes.try_into().map(Self::from_le_bytes).map_err(|_| Garbled)
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64, i128);

impl Record for bool {
    fn put(&self, to: &mut Vec<u8>) {
        u8::from(*self).put(to);
    }

    fn take(from: &mut &[u8]) -> Result<Self, Garbled> {
        match u8::take(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Garbled),
        }
    }
}

impl<T: Record> Record for Option<T> {
    fn put(&self, to: &mut Vec<u8>) {
        self.is_some().put(to);
        self.iter().for_each(|value| value.put(to));
    }

    fn take(from: &mut &[u8]) -> Result<Self, Garbled> {
        bool::take(from)?.then(|| T::take(from)).transpose()
    }
}

impl<T: Record> Record for Vec<T> {
    fn put(&self, to: &mut Vec<u8>) {
        (self.len() as u32).put(to);
        self.iter().for_each(|value| value.put(to));
    }

    /// Nothing is set aside for what is not there: each element takes a byte at least.
    fn take(from: &mut &[u8]) -> Result<Self, Garbled> {
        let count = u32::take(from)?;
        if count as usize > from.len() {
            return Err(Garbled);
        }
        (0..count).map(|_| T::take(from)).collect()
    }
}

impl<T: Record, const N: usize> Record for [T; N] {
    fn put(&self, to: &mut Vec<u8>) {
        self.iter().for_each(|value| value.put(to));
    }

    fn take(from: &mut &[u8]) -> Result<Self, Garbled> {
        let taken: Result<Vec<T>, Garbled> = (0..N).map(|_| T::take(from)).collect();
        taken?.try_into().map_err(|_| Garbled)
    }
}

/// Writes and reads a structure field by field, in the order in which they stand there.
macro_rules! record {
    ($type:ty { $($field:ident),* $(,)? }) => {
        impl Record for $type {
            fn put(&self, to: &mut Vec<u8>) {
                $(self.$field.put(to);)*
            }

            fn take(from: &mut &[u8]) -> Result<Self, Garbled> {
                Ok(Self { $($field: Record::take(from)?),* })
            }
        }
    };
}
pub(super) use record;
