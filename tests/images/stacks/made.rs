//! Stacks of layers by a seed: what archives of images have, and what they could have, many times over the same few paths.

use crate::tarball::{Head, Tarball, record};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers that are the same for a seed (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Less than `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// One layer, twice, which should be the same to a reader.
pub struct Made {
    /// In the form that others agree on. What it removes comes first: many take it from the layer itself, too, as far as
    /// that came before, though the specification says that it counts for the layers below only.
    pub orderly: Vec<u8>,
    /// What it removes comes anywhere, and sparse files also have GNU's old form.
    pub shuffled: Vec<u8>,
}

type Path = Vec<Vec<u8>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Symlink,
    /// A device or a FIFO.
    Special,
}

#[derive(Clone)]
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    /// Seconds and nanoseconds.
    mtime: (u64, u32),
}

#[derive(Clone)]
struct Known {
    kind: Kind,
    attributes: Attributes,
    xattrs: Xattrs,
}

type Xattrs = Vec<(&'static str, Vec<u8>)>;

/// Layers, each on top of those before it. The first has no need of whiteouts, and may have some all the same.
pub fn stack(seed: u64) -> Vec<Made> {
    let mut random = Random::new(seed);
    let mut there = BTreeMap::new();
    let count = 1 + random.below(5);
    let layers =
        (1..=count).map(|number| Layer::new(&mut random, &mut there, number == count).make());
    layers.collect()
}

struct Layer<'a> {
    random: &'a mut Random,
    /// What a container sees so far.
    there: &'a mut BTreeMap<Path, Known>,
    /// What this layer has.
    own: BTreeSet<Path>,
    removals: Vec<Vec<u8>>,
    removed: Vec<Path>,
    is_last: bool,
    /// For others, and for kvmlet.
    members: Vec<(Vec<u8>, Vec<u8>)>,
    /// Targets of links, which this layer must not remove.
    kept: Vec<Path>,
}

const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"usr",
    b"a b",
    b"new\nline",
    b"\xff\xfe",
    "Stra\u{df}e".as_bytes(),
    b"...",
    b".hidden",
    b"-rf",
    b"wh.x",
    b"x.wh.",
    &[b'l'; 99],
    &[b'm'; 120],
    &[b'n'; 255],
];

fn is_under(path: &[Vec<u8>], directory: &[Vec<u8>]) -> bool {
    path.len() > directory.len() && path.starts_with(directory)
}

impl<'a> Layer<'a> {
    fn new(random: &'a mut Random, there: &'a mut BTreeMap<Path, Known>, is_last: bool) -> Self {
        Self {
            random,
            there,
            own: BTreeSet::new(),
            removals: Vec::new(),
            removed: Vec::new(),
            is_last,
            members: Vec::new(),
            kept: Vec::new(),
        }
    }

    fn make(mut self) -> Made {
        self.removals();
        if self.random.one_in(3) {
            let mut attributes = self.attributes();
            attributes.mode &= !0o2000;
            self.push(Head::new(b'5', b"./"), &attributes, &[], b"");
        }
        for _ in 0..1 + self.random.below(14) {
            self.member();
        }
        let finish = |members: &[Vec<u8>]| [&members.concat()[..], &[0; 1024]].concat();
        let (others, mut shuffled): (Vec<_>, Vec<_>) = self.members.into_iter().unzip();
        let orderly = [&self.removals[..], &others].concat();
        for removal in self.removals {
            let at = self.random.below(shuffled.len() + 1);
            shuffled.insert(at, removal);
        }
        Made {
            orderly: finish(&orderly),
            shuffled: finish(&shuffled),
        }
    }

    fn path(&mut self) -> Path {
        // Mostly near to what is there.
        let mut path = match self.random.below(3) {
            0 => Path::new(),
            _ => {
                let number = self.random.below(self.there.len().max(1));
                self.there.keys().nth(number).cloned().unwrap_or_default()
            }
        };
        if self.random.one_in(3) {
            path.pop();
        }
        while path.is_empty() || (path.len() < 5 && self.random.one_in(2)) {
            let end = if self.random.one_in(4) {
                NAMES.len()
            } else {
                4
            };
            path.push(NAMES[self.random.below(end)].to_vec());
        }
        path
    }

    /// As archives write paths.
    fn written(&mut self, path: &[Vec<u8>], is_directory: bool) -> Vec<u8> {
        let mut text = path.join(&b'/');
        match self.random.below(12) {
            0 => text.insert(0, b'/'),
            1..=4 => drop(text.splice(0..0, *b"./")),
            5 => text = path.join(&b"//"[..]),
            6 => text = path.join(&b"/./"[..]),
            _ => {}
        }
        if is_directory && self.random.one_in(2) {
            text.push(b'/');
        }
        text
    }

    fn attributes(&mut self) -> Attributes {
        let mode = *self
            .random
            .of(&[0o644, 0o755, 0o600, 0o4755, 0o2750, 0o1777, 0, 0o7777]);
        let owners = [
            0,
            0,
            1,
            1000,
            65_534,
            70_000,
            2_097_151,
            3_000_000,
            4_000_000_000,
        ];
        let (uid, gid) = (*self.random.of(&owners), *self.random.of(&owners));
        let nanoseconds = *self.random.of(&[0, 0, 500_000_000, 123_456_789, 1]);
        let mtime = (1 + self.random.next() % 1_700_000_000, nanoseconds);
        Attributes {
            mode,
            uid,
            gid,
            mtime,
        }
    }

    fn xattrs(&mut self, kind: Kind) -> Xattrs {
        let mut all = Vec::new();
        if !matches!(kind, Kind::File | Kind::Directory) || !self.random.one_in(4) {
            return all;
        }
        // None is empty: some take an empty value for none.
        let length = *self.random.of(&[1, 5, 300]);
        all.push(("user.kvmlet", vec![b'='; length]));
        if self.random.one_in(2) {
            all.push(("user.other name", b"\0\n\xff".to_vec()));
        }
        if kind == Kind::File && self.random.one_in(2) {
            // cap_net_raw=ep, of version 2.
            let value = [[1, 0, 0, 2], [0, 0x20, 0, 0], [0; 4], [0; 4], [0; 4]].concat();
            all.push(("security.capability", value));
        }
        all
    }

    // What it takes from below.

    fn removals(&mut self) {
        for _ in 0..self.random.below(4) {
            let number = self.random.below(self.there.len() + 1);
            let known = self.there.keys().nth(number).cloned();
            let path = known
                .filter(|path| !path.is_empty())
                .unwrap_or_else(|| self.path());
            // What is removed in what is removed leaves a directory or does not, as it comes first or last.
            let clashes = |it: &Path| *it == path || is_under(it, &path) || is_under(&path, it);
            if self.is_blocked(&path) || self.removed.iter().any(clashes) {
                continue;
            }
            self.removed.push(path.clone());
            match self.random.below(3) {
                0 if self
                    .there
                    .get(&path)
                    .is_some_and(|it| it.kind == Kind::Directory) =>
                {
                    self.there.retain(|it, _| !is_under(it, &path));
                    self.removal(&path, b".wh..wh..opq".to_vec());
                }
                _ => {
                    let (last, parents) = path.split_last().unwrap();
                    // No name is longer than 255 bytes: what has a long one stays.
                    if last.len() > 255 - b".wh.".len() {
                        continue;
                    }
                    self.there
                        .retain(|it, _| *it != path && !is_under(it, &path));
                    self.removal(parents, [b".wh.", &last[..]].concat());
                }
            }
        }
    }

    fn removal(&mut self, directory: &[Vec<u8>], name: Vec<u8>) {
        self.imply(&[directory, &[b"x".to_vec()]].concat());
        let path = [directory, &[name]].concat();
        // Some refuse archives in which a path is twice.
        if !self.own.insert(path.clone()) {
            return;
        }
        let path = self.written(&path, false);
        let mut made = Tarball::default();
        made.member(&Head::new(b'0', &path), b"");
        self.removals.push(made.0);
    }

    // What it has.

    /// Whether something that is not a directory is on the way.
    fn is_blocked(&self, path: &[Vec<u8>]) -> bool {
        (1..path.len()).any(|length| {
            self.there
                .get(&path[..length])
                .is_some_and(|it| it.kind != Kind::Directory)
        })
    }

    /// Directories on the way that nobody has said anything about.
    fn imply(&mut self, path: &[Vec<u8>]) {
        let attributes = Attributes {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
        };
        for length in 1..path.len() {
            let known = Known {
                kind: Kind::Directory,
                attributes: attributes.clone(),
                xattrs: Vec::new(),
            };
            self.there.entry(path[..length].to_vec()).or_insert(known);
        }
    }

    fn member(&mut self) {
        let path = self.path();
        let is_kept = |it: &Path| *it == path || is_under(it, &path);
        if self.is_blocked(&path) || self.own.contains(&path) || self.kept.iter().any(is_kept) {
            return;
        }
        let kind = match self.random.below(12) {
            0..=4 => Kind::File,
            5..=7 => Kind::Directory,
            8 => Kind::Symlink,
            9 => Kind::Special,
            10 => return self.link(&path),
            _ => return self.through(&path),
        };
        // What is in this layer's own directory stays there.
        if kind != Kind::Directory && self.own.iter().any(|it| is_under(it, &path)) {
            return;
        }
        self.add(&path, kind);
    }

    fn add(&mut self, path: &Path, kind: Kind) {
        let mut attributes = self.attributes();
        if kind == Kind::Directory {
            // Where directories are made by mkdir(2), those that are implied would have its group.
            attributes.mode &= !0o2000;
        }
        let xattrs = match self.there.get(path) {
            // Some let a directory keep those that a layer above does not name.
            Some(known) if kind == Kind::Directory && known.kind == kind => known.xattrs.clone(),
            _ => self.xattrs(kind),
        };
        let written = self.written(path, kind == Kind::Directory);
        let (mut target, mut data, mut device) = (Vec::new(), Vec::new(), (0, 0));
        let letter = match kind {
            Kind::File if self.random.one_in(6) => {
                self.know(path, kind, &attributes, &xattrs);
                return self.sparse(&written, &attributes);
            }
            Kind::File => {
                let length = *self
                    .random
                    .of(&[0, 1, 100, 511, 512, 4095, 4096, 4097, 9000]);
                data = (0..length).map(|_| self.random.next() as u8).collect();
                *self.random.of(&[b'0', b'0', b'0', 0])
            }
            Kind::Directory => b'5',
            Kind::Symlink => {
                let targets: &[&[u8]] = &[
                    b"a",
                    b"/etc/passwd",
                    b"b/c",
                    b"no such",
                    &[b't'; 101],
                    &[b'u'; 3000],
                ];
                target = self.random.of(targets).to_vec();
                b'2'
            }
            Kind::Special => {
                device = *self.random.of(&[(1, 3), (8, 0), (300, 70_000), (5, 255)]);
                *self.random.of(b"346")
            }
        };
        self.know(path, kind, &attributes, &xattrs);
        let head = Head {
            target: &target,
            device,
            ..Head::new(letter, &written)
        };
        self.push(head, &attributes, &xattrs, &data);
    }

    fn know(&mut self, path: &Path, kind: Kind, attributes: &Attributes, xattrs: &Xattrs) {
        self.imply(path);
        if kind != Kind::Directory {
            self.there.retain(|it, _| !is_under(it, path));
        }
        self.there.insert(
            path.clone(),
            Known {
                kind,
                attributes: attributes.clone(),
                xattrs: xattrs.clone(),
            },
        );
        self.own.insert(path.clone());
    }

    fn push(
        &mut self,
        head: Head<'_>,
        attributes: &Attributes,
        xattrs: &[(&str, Vec<u8>)],
        data: &[u8],
    ) {
        let mut made = Tarball::default();
        let (head, records) = extended(head, attributes, xattrs);
        if !records.is_empty() {
            made.extended(&records);
        }
        made.header(&head, data.len() as u64).data(data);
        self.members.push((made.0.clone(), made.0));
    }

    /// Another name for a file of this layer or of one below. Its entry says of it what the file's own does, as those of
    /// all writers of archives do.
    fn link(&mut self, path: &Path) {
        // Some forget, in the next layer, that one link or device has several names.
        let is_shared = |path: &Path, kind: Kind| match kind {
            Kind::File => true,
            Kind::Directory => false,
            _ => self.is_last && self.own.contains(path),
        };
        let files = self
            .there
            .iter()
            .filter(|(path, it)| is_shared(path, it.kind));
        let files: Vec<_> = files.collect();
        if files.is_empty() {
            return;
        }
        let (target, known) = *self.random.of(&files);
        let (target, known) = (target.clone(), known.clone());
        let way = self.own.iter().any(|it| is_under(it, path));
        if way || target == *path || is_under(&target, path) {
            return;
        }
        let written = self.written(path, false);
        let leads = target.join(&b'/');
        self.know(path, known.kind, &known.attributes, &Vec::new());
        self.kept.push(target);
        let head = Head {
            target: &leads,
            ..Head::new(b'1', &written)
        };
        self.push(head, &known.attributes, &[], b"");
    }

    /// A file that is reached by a symbolic link of its own layer.
    fn through(&mut self, path: &Path) {
        let inside = |name: &[u8]| [&path[..], &[name.to_vec()]].concat();
        let (directory, link) = (inside(b"lib-real"), inside(b"lib"));
        if [path, &directory, &link]
            .into_iter()
            .any(|it| self.there.contains_key(it))
        {
            return;
        }
        self.add(&directory, Kind::Directory);
        let attributes = self.attributes();
        self.know(&link, Kind::Symlink, &attributes, &Vec::new());
        let written = self.written(&link, false);
        let head = Head {
            target: b"lib-real",
            ..Head::new(b'2', &written)
        };
        self.push(head, &attributes, &[], b"");
        let attributes = self.attributes();
        let file = [&directory[..], &[b"f".to_vec()]].concat();
        self.know(&file, Kind::File, &attributes, &Vec::new());
        let written = [&link[..], &[b"f".to_vec()]].concat().join(&b'/');
        self.push(
            Head::new(b'0', &written),
            &attributes,
            &[],
            b"through a link",
        );
    }

    /// A file with holes, in GNU's old form or in that of PAX.
    fn sparse(&mut self, path: &[u8], attributes: &Attributes) {
        let mut at = 0;
        let mut stretches = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            at += 512 * self.random.below(40) as u64;
            let length = 512 * (1 + self.random.below(9)) as u64;
            stretches.push((at, length));
            at += length;
        }
        let size = at + *self.random.of(&[0, 1, 512, 1 << 20]);
        // Where the last hole ends is told by a stretch of nothing.
        stretches.push((size, 0));
        let data = stretches.iter().map(|it| it.1 as usize).sum();
        let data: Vec<u8> = (0..data).map(|_| self.random.next() as u8).collect();
        let mut made = Tarball::default();
        if self.random.one_in(2) && path.len() <= 100 {
            let (head, records) = extended(Head::new(b'S', path), attributes, &[]);
            if !records.is_empty() {
                made.extended(&records);
            }
            let mut whole = made.clone();
            gnu_sparse(&mut made, &head, &stretches, size).data(&data);
            // Some take GNU's form for no file at all.
            let mut content = vec![0; size as usize];
            let mut rest = &data[..];
            for (at, length) in stretches {
                let (stretch, more) = rest.split_at(length as usize);
                content[at as usize..][..stretch.len()].copy_from_slice(stretch);
                rest = more;
            }
            whole
                .header(&Head { kind: b'0', ..head }, size)
                .data(&content);
            self.members.push((whole.0, made.0));
        } else {
            let mut map = format!("{}\n", stretches.len());
            for (at, length) in &stretches {
                map += &format!("{at}\n{length}\n");
            }
            let mut content = map.into_bytes();
            content.resize(content.len().next_multiple_of(512), 0);
            content.extend(data);
            let (head, mut records) =
                extended(Head::new(b'0', b"GNUSparseFile.0/x"), attributes, &[]);
            records.extend(record("GNU.sparse.major", b"1"));
            records.extend(record("GNU.sparse.minor", b"0"));
            records.extend(record("GNU.sparse.name", path));
            records.extend(record("GNU.sparse.realsize", size.to_string().as_bytes()));
            made.extended(&records)
                .header(&head, content.len() as u64)
                .data(&content);
            self.members.push((made.0.clone(), made.0));
        }
    }
}

/// The old form's header has room for four stretches.
fn gnu_sparse<'a>(
    made: &'a mut Tarball,
    head: &Head<'_>,
    stretches: &[(u64, u64)],
    size: u64,
) -> &'a mut Tarball {
    let data: u64 = stretches.iter().map(|it| it.1).sum();
    made.header(head, data);
    let from = made.0.len() - 512;
    let mut block: [u8; 512] = made.0.split_off(from).try_into().unwrap();
    block[257..265].copy_from_slice(b"ustar  \0");
    block[329..345].fill(0);
    let mut put = |at: usize, number: u64| {
        block[at..at + 12].copy_from_slice(format!("{number:011o}\0").as_bytes());
    };
    for (number, (at, length)) in stretches.iter().enumerate() {
        put(386 + 24 * number, *at);
        put(386 + 24 * number + 12, *length);
    }
    put(483, size);
    made.block(block)
}

/// A header with these attributes, and the records that it takes for what does not fit.
fn extended<'a>(
    mut head: Head<'a>,
    attributes: &Attributes,
    xattrs: &[(&str, Vec<u8>)],
) -> (Head<'a>, Vec<u8>) {
    let mut records = Vec::new();
    for (key, value) in [("path", head.path), ("linkpath", head.target)] {
        if value.len() > 100 {
            records.extend(record(key, value));
        }
    }
    head.mode = attributes.mode;
    // What seven octal digits hold.
    for (key, number, place) in [
        ("uid", attributes.uid, &mut head.uid),
        ("gid", attributes.gid, &mut head.gid),
    ] {
        match number < 1 << 21 {
            true => *place = number,
            false => records.extend(record(key, number.to_string().as_bytes())),
        }
    }
    head.mtime = attributes.mtime.0;
    if attributes.mtime.1 != 0 {
        let text = format!("{}.{:09}", attributes.mtime.0, attributes.mtime.1);
        records.extend(record("mtime", text.as_bytes()));
    }
    for (name, value) in xattrs {
        records.extend(record(&format!("SCHILY.xattr.{name}"), value));
    }
    (head, records)
}
