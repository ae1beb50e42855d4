//! Layers are compressed in one of two ways or not at all. Their content tells, for what a manifest calls them is wrong
//! now and then.

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

/// The most that a zstd decoder looks back. The command `zstd` needs more only where it is told to (`--long`).
const MAX_WINDOW: u64 = 128 << 20;
/// Frames that are not data: there are sixteen numbers for them (RFC 8878).
const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A layer as it comes, with the bytes that have been looked at in front again.
type Source<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// Reads what a layer was before it was compressed.
pub struct Decompressed<R: Read>(Form<R>);

enum Form<R: Read> {
    Plain(Source<R>),
    Gzip(Box<MultiGzDecoder<Source<R>>>),
    Zstd(Box<Frames<Source<R>>>),
}

impl<R: Read> Decompressed<R> {
    /// Looks at the first bytes.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn new(mut source: R) -> io::Result<Self> {
        let mut first = Vec::new();
        source.by_ref().take(4).read_to_end(&mut first)?;
        let is_gzip = first.starts_with(&GZIP);
        let is_zstd = first == ZSTD || is_skippable(&first);
        let source = BufReader::with_capacity(64 << 10, Cursor::new(first).chain(source));
        Ok(Self(match (is_gzip, is_zstd) {
            (true, _) => Form::Gzip(Box::new(MultiGzDecoder::new(source))),
            (_, true) => Form::Zstd(Box::new(Frames::new(source))),
            _ => Form::Plain(source),
        }))
    }

    /// Whether it is not compressed.
    pub fn is_plain(&self) -> bool {
        matches!(self.0, Form::Plain(_))
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Form::Plain(source) => source.read(bytes),
            Form::Gzip(decoder) => decoder.read(bytes),
            Form::Zstd(frames) => frames.read(bytes),
        }
    }
}

fn is_skippable(magic: &[u8]) -> bool {
    magic.len() == 4 && magic[0] & 0xf0 == 0x50 && magic[1..] == SKIPPABLE
}

/// Zstandard frames behind each other.
struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    /// Within a frame.
    inside: bool,
}

impl<R: BufRead> Frames<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW);
        Self {
            source,
            decoder,
            inside: false,
        }
    }

    /// Begins the next frame with data; false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut frame = self.source.by_ref().take(length.into());
                    if io::copy(&mut frame, &mut io::sink())? < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        use ruzstd::decoding::BlockDecodingStrategy::UptoBlocks;
        loop {
            if !self.inside && !self.begin()? {
                return Ok(0);
            }
            self.inside = true;
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let decoded = self.decoder.decode_blocks(&mut self.source, UptoBlocks(1));
                decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            let count = self.decoder.read(bytes)?;
            if count > 0 || bytes.is_empty() {
                return Ok(count);
            }
            self.inside = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        ruzstd::encoding::compress_to_vec(bytes, level)
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        Decompressed::new(bytes)?.read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn content_tells_how_it_is_compressed() {
        let text: Vec<u8> = (0..300_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        let (first, second) = text.split_at(100_001);
        assert_eq!(read(&text).unwrap(), text);
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(b"ab").unwrap(), b"ab");
        assert_eq!(read(&gzip(&text)).unwrap(), text);
        assert_eq!(
            read(&[gzip(first), gzip(b""), gzip(second)].concat()).unwrap(),
            text
        );
        assert_eq!(read(&zstd(&text)).unwrap(), text);
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"12345"].concat();
        let parts = [
            &skipped,
            &zstd(first),
            &skipped,
            &skipped,
            &zstd(second),
            &skipped,
        ];
        assert_eq!(
            read(&parts.map(|part| part.to_vec()).concat()).unwrap(),
            text
        );
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let text: Vec<u8> = (0..10_000_u32)
            .flat_map(|n| (n * n).to_le_bytes())
            .collect();
        for whole in [gzip(&text), zstd(&text)] {
            for length in [5, 10, whole.len() / 2, whole.len() - 1] {
                assert!(
                    read(&whole[..length]).is_err(),
                    "{length} of {}",
                    whole.len()
                );
            }
        }
        assert!(read(&[0x5a, 0x2a, 0x4d, 0x18, 5, 0, 0, 0, 1]).is_err());
        assert!(read(&[zstd(&text), b"more".to_vec()].concat()).is_err());
    }
}
