//! Compression of what is written: zstd, in frames that follow each other, as `zstd` and `tar` read it.

use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::io::{self, Write};

/// What is compressed at once, as a frame of its own.
const FRAME: usize = 1 << 20;

/// Compresses what is written to it.
pub struct Compressed<W> {
    out: W,
    pending: Vec<u8>,
}

impl<W: Write> Compressed<W> {
    /// What goes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            pending: Vec::with_capacity(FRAME),
        }
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.write_frame()?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn write_frame(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // From memory to memory: the encoder has no errors, and would end the process at one of a file's.
        let frame = compress_to_vec(&*self.pending, CompressionLevel::Fastest);
        self.pending.clear();
        self.out.write_all(&frame)
    }
}

impl<W: Write> Write for Compressed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(FRAME - self.pending.len());
        self.pending.extend_from_slice(&bytes[..count]);
        if self.pending.len() == FRAME {
            self.write_frame()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_frame()?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Decompressed;
    use std::io::Read;

    #[test]
    fn what_was_compressed_is_read_again() {
        // Compressible, not compressible, and all alike, over the borders of frames.
        let mut random = 0x2545_f491_4f6c_dd1du64;
        let mut bytes = b"a line that comes again and again\n".repeat(30_000);
        bytes.extend((0..FRAME + 7).map(|_| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 56) as u8
        }));
        bytes.resize(bytes.len() + FRAME, 7);
        let mut packed = Compressed::new(Vec::new());
        packed.write_all(&bytes).unwrap();
        let packed = packed.finish().unwrap();
        assert!(packed.len() < FRAME + FRAME / 4, "{}", packed.len());
        let mut read = Vec::new();
        let mut plain = Decompressed::new(&*packed).unwrap();
        plain.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
        assert_eq!(Compressed::new(Vec::new()).finish().unwrap(), b"");
    }

    #[test]
    fn what_cannot_be_written_is_told() {
        let mut full = [0u8; 16];
        let mut packed = Compressed::new(&mut full[..]);
        packed.write_all(b"text").unwrap();
        packed.write_all(&(0..=255).collect::<Vec<u8>>()).unwrap();
        assert!(packed.finish().is_err());
    }
}
