//! Archives for tests, member by member.

/// An archive that is being made; what it is without its end.
#[derive(Clone, Debug, Default)]
pub struct Tarball(pub Vec<u8>);

/// A member's header.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    pub kind: u8,
    pub path: &'a [u8],
    pub target: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
    pub device: (u32, u32),
}

impl<'a> Head<'a> {
    pub fn new(kind: u8, path: &'a [u8]) -> Self {
        Self {
            kind,
            path,
            target: b"",
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 1_700_000_000,
            device: (0, 0),
        }
    }
}

/// A record of an extended header, whose length counts itself.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

impl Tarball {
    /// Adds a header and data, padded. Paths that do not fit get an extended header.
    pub fn member(&mut self, head: &Head<'_>, data: &[u8]) -> &mut Self {
        let mut records = Vec::new();
        for (key, value) in [("path", head.path), ("linkpath", head.target)] {
            if value.len() > 100 {
                records.extend(record(key, value));
            }
        }
        if !records.is_empty() {
            self.extended(&records);
        }
        self.header(head, data.len() as u64).data(data)
    }

    pub fn extended(&mut self, records: &[u8]) -> &mut Self {
        self.header(&Head::new(b'x', b"PaxHeaders"), records.len() as u64)
            .data(records)
    }

    pub fn header(&mut self, head: &Head<'_>, size: u64) -> &mut Self {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        let octal = |number: u64, width: usize| format!("{number:0width$o}").into_bytes();
        put(0, &head.path[..head.path.len().min(100)]);
        put(100, &octal(head.mode.into(), 7));
        put(108, &octal(head.uid.into(), 7));
        put(116, &octal(head.gid.into(), 7));
        put(124, &octal(size, 11));
        put(136, &octal(head.mtime, 11));
        put(156, &[head.kind]);
        put(157, &head.target[..head.target.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, &octal(head.device.0.into(), 7));
        put(337, &octal(head.device.1.into(), 7));
        self.block(block)
    }

    /// Adds a header with its checksum.
    pub fn block(&mut self, mut block: [u8; 512]) -> &mut Self {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend_from_slice(&block);
        self
    }

    pub fn data(&mut self, data: &[u8]) -> &mut Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(&mut self, path: &str, data: &[u8]) -> &mut Self {
        self.member(&Head::new(b'0', path.as_bytes()), data)
    }

    pub fn directory(&mut self, path: &str, mode: u32, uid: u32) -> &mut Self {
        let mut head = Head::new(b'5', path.as_bytes());
        (head.mode, head.uid) = (mode, uid);
        self.member(&head, b"")
    }

    pub fn link(&mut self, kind: u8, path: &str, target: &str) -> &mut Self {
        let mut head = Head::new(kind, path.as_bytes());
        head.target = target.as_bytes();
        self.member(&head, b"")
    }

    /// The whole archive.
    pub fn finish(&self) -> Vec<u8> {
        [&self.0[..], &[0; 1024]].concat()
    }
}
