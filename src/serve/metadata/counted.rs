//! What the service has done so far, which whoever attends the VM reads from a file in memory that both have.

use kvmlet_sys::sealed::slate;
use rustix::io::{pread, pwrite};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident)*) => {
        /// What the service has done so far.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counted {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counted {
            /// Each with its name, which is Firecracker's.
            pub const fn all(&self) -> [(&'static str, u64); Self::COUNT] {
                [$((stringify!($name), self.$name)),*]
            }

            const COUNT: usize = [$(stringify!($name)),*].len();

            fn of(numbers: [u64; Self::COUNT]) -> Self {
                let [$($name),*] = numbers;
                Self { $($name),* }
            }
        }
    };
}

counters! {
    /// Frames that came to the service.
    rx_accepted
    /// Those of them that are not Ethernet's.
    rx_bad_eth
    /// Segments of TCP.
    rx_count
    /// Requests without the token that they need.
    rx_no_token
    /// Requests with one that is not good.
    rx_invalid_token
    /// Bytes of frames that were sent.
    tx_bytes
    /// Those frames.
    tx_count
    /// The same again.
    tx_frames
    /// Frames that could not be sent.
    tx_errors
    /// Connections that guests began.
    connections_created
    /// Those that are over.
    connections_destroyed
}

const BYTES: usize = Counted::COUNT * 8;

/// The file. Who writes to it is as little trusted as its guest: its size is what it is, and any numbers are counts.
#[derive(Debug)]
pub struct Slate(OwnedFd);

impl Slate {
    /// One on which nothing stands.
    pub fn new() -> io::Result<Self> {
        slate("metadata-counts", BYTES as u64).map(|file| Self(file.into()))
    }

    /// What stands there.
    pub fn read(&self) -> Counted {
        let mut bytes = [0; BYTES];
        // What is not there reads as zeros.
        let _ = pread(&self.0, &mut bytes, 0);
        let mut words = bytes.chunks_exact(8);
        Counted::of(std::array::from_fn(|_| {
            let word = words.next().and_then(|word| word.try_into().ok());
            word.map_or(0, u64::from_ne_bytes)
        }))
    }

    /// Replaces it.
    pub fn write(&self, counted: &Counted) {
        let numbers = counted.all().map(|(_, number)| number.to_ne_bytes());
        // Nobody is to be without an answer for it.
        let _ = pwrite(&self.0, numbers.as_flattened(), 0);
    }
}

impl AsFd for Slate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Slate {
    fn from(file: OwnedFd) -> Self {
        Self(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_no_more_than_fits() {
        let slate = Slate::new().unwrap();
        assert_eq!(slate.read(), Counted::default());
        let counted = Counted {
            rx_accepted: 7,
            connections_destroyed: u64::MAX,
            ..Counted::default()
        };
        slate.write(&counted);
        assert_eq!(slate.read(), counted);
        assert_eq!(counted.all()[0], ("rx_accepted", 7));
        assert!(pwrite(&slate, b"x", BYTES as u64).is_err());
        assert!(rustix::fs::ftruncate(&slate, 0).is_err());
    }
}
