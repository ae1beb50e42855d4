//! What a layer changes, as bytes, and read from them. The same changes make the same bytes.

use super::{Changes, MAX_FILES, Path};
use crate::packed::{Packed, Unpacked};
use crate::tree::{
    Attributes, Content, Device, Kind, MAX_TARGET, Name, Node, NodeId, Run, Time, Tree, XattrName,
    Xattrs,
};
use std::collections::{BTreeMap, BTreeSet};

/// What a directory is beside its entries.
const IMPLIED: u64 = 1;
const OPAQUE: u64 = 2;

/// The kinds by numbers.
const DIRECTORY: u64 = 0;
const FILE: u64 = 1;
const SYMLINK: u64 = 2;
const CHARACTER: u64 = 3;
const BLOCK: u64 = 4;
const FIFO: u64 = 5;
const SOCKET: u64 = 6;

impl Changes {
    /// All of it as bytes: each node that can be reached, directories before what they contain.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (order, numbers) = self.numbered();
        let mut out = Packed::default();
        out.number(order.len() as u64);
        for id in order {
            let Node { attributes, kind } = self.tree.node(id);
            write_attributes(attributes, &mut out);
            match kind {
                Kind::Directory(children) => {
                    out.number(DIRECTORY);
                    self.write_directory(id, children, &numbers, &mut out);
                }
                Kind::File(content) => {
                    out.number(FILE);
                    write_content(content, &mut out);
                }
                Kind::Symlink(target) => {
                    out.number(SYMLINK);
                    out.text(target);
                }
                Kind::Character(device) => write_device(CHARACTER, *device, &mut out),
                Kind::Block(device) => write_device(BLOCK, *device, &mut out),
                Kind::Fifo => out.number(FIFO),
                Kind::Socket => out.number(SOCKET),
            }
        }
        out.0
    }

    /// Those nodes that can be reached, in the order of their new numbers.
    fn numbered(&self) -> (Vec<NodeId>, BTreeMap<NodeId, u64>) {
        let mut order = vec![Tree::ROOT];
        let mut numbers = BTreeMap::from([(Tree::ROOT, 0)]);
        let mut next = 0;
        while let Some(id) = order.get(next).copied() {
            next += 1;
            for child in self
                .tree
                .children(id)
                .into_iter()
                .flat_map(BTreeMap::values)
            {
                numbers.entry(*child).or_insert_with(|| {
                    order.push(*child);
                    order.len() as u64 - 1
                });
            }
        }
        (order, numbers)
    }

    fn write_directory(
        &self,
        id: NodeId,
        children: &BTreeMap<Name, NodeId>,
        numbers: &BTreeMap<NodeId, u64>,
        out: &mut Packed,
    ) {
        let implied = if self.is_implied(id) { IMPLIED } else { 0 };
        let opaque = if self.is_opaque(id) { OPAQUE } else { 0 };
        out.number(implied | opaque);
        out.number(children.len() as u64);
        for (name, child) in children {
            out.text(name.as_bytes());
            out.number(numbers.get(child).copied().unwrap_or_default());
        }
        out.number(self.removed(id).count() as u64);
        for name in self.removed(id) {
            out.text(name.as_bytes());
        }
        out.number(self.links(id).count() as u64);
        for (name, target) in self.links(id) {
            out.text(name.as_bytes());
            out.number(target.len() as u64);
            for name in target {
                out.text(name.as_bytes());
            }
        }
    }

    /// Reads what [`to_bytes`](Self::to_bytes) has written; `None` if these bytes are anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reading = Reading {
            from: Unpacked(bytes),
            changes: Self::new(MAX_FILES),
            nodes: 0,
            known: BTreeSet::from([0]),
        };
        reading.all()?;
        reading.from.0.is_empty().then_some(reading.changes)
    }
}

fn write_attributes(it: &Attributes, out: &mut Packed) {
    out.number((it.mode & 0o7777).into());
    out.number(it.uid.into());
    out.number(it.gid.into());
    out.signed(it.mtime.seconds);
    out.number(it.mtime.nanoseconds.into());
    out.number(it.xattrs.iter().count() as u64);
    for (name, value) in it.xattrs.iter() {
        out.text(&name.to_bytes());
        out.text(value);
    }
}

fn write_content(content: &Content, out: &mut Packed) {
    out.number(content.size());
    out.number(content.runs().len() as u64);
    for run in content.runs() {
        out.number(run.at.into());
        out.number(run.block.into());
        out.number(run.blocks.into());
    }
}

fn write_device(kind: u64, device: Device, out: &mut Packed) {
    out.number(kind);
    out.number(device.major().into());
    out.number(device.minor().into());
}

struct Reading<'a> {
    from: Unpacked<'a>,
    changes: Changes,
    /// How many there are.
    nodes: usize,
    /// Those that some directory has named; directories are named once, by one before them.
    known: BTreeSet<usize>,
}

impl Reading<'_> {
    fn all(&mut self) -> Option<()> {
        self.nodes = self.from.count()?;
        // All but the root, which is counted.
        self.changes.count(self.nodes.checked_sub(1)?).ok()?;
        let mut directories = BTreeSet::new();
        let mut named = BTreeMap::<usize, u32>::new();
        for number in 0..self.nodes {
            // Whoever names it comes before it.
            self.known.contains(&number).then_some(())?;
            let attributes = self.attributes()?;
            let kind = self.kind(number, &mut named)?;
            if matches!(kind, Kind::Directory(_)) {
                directories.insert(number);
            }
            match number {
                0 => *self.changes.tree.node_mut(Tree::ROOT) = Node { attributes, kind },
                _ => drop(self.changes.tree.add(Node { attributes, kind })?),
            }
        }
        let is_once = |it: &usize| named.get(it).copied().unwrap_or_default() <= 1;
        let root = self.changes.tree.children(Tree::ROOT).is_some() && !named.contains_key(&0);
        (root && directories.iter().all(is_once)).then_some(())
    }

    fn kind(&mut self, number: usize, named: &mut BTreeMap<usize, u32>) -> Option<Kind> {
        Some(match self.from.number()? {
            DIRECTORY => Kind::Directory(self.directory(number, named)?),
            FILE => Kind::File(self.content()?),
            SYMLINK => {
                let target = self.from.text()?;
                let fits = (1..=MAX_TARGET).contains(&target.len()) && !target.contains(&0);
                fits.then(|| Kind::Symlink(target.into()))?
            }
            CHARACTER => Kind::Character(self.device()?),
            BLOCK => Kind::Block(self.device()?),
            FIFO => Kind::Fifo,
            SOCKET => Kind::Socket,
            _ => return None,
        })
    }

    fn directory(
        &mut self,
        number: usize,
        named: &mut BTreeMap<usize, u32>,
    ) -> Option<BTreeMap<Name, NodeId>> {
        let id = NodeId::at(number)?;
        let flags = self.from.number()?;
        // New changes begin with a root that is implied.
        self.changes.implied.remove(&id);
        if flags & IMPLIED != 0 {
            self.changes.implied.insert(id);
        }
        if flags & OPAQUE != 0 {
            self.changes.opaque.insert(id);
        }
        let mut children = BTreeMap::new();
        for _ in 0..self.from.count()? {
            let name = self.name()?;
            let child: usize = self.from.small()?;
            (child < self.nodes).then_some(())?;
            // A file's other names may come later than it does, a directory's one name cannot.
            self.known.insert(child);
            *named.entry(child).or_default() += if child <= number { 2 } else { 1 };
            children.insert(name, NodeId::at(child)?);
        }
        for _ in 0..self.from.count()? {
            let name = self.name()?;
            self.changes.count(1).ok()?;
            self.changes.removed.entry(id).or_default().insert(name);
        }
        for _ in 0..self.from.count()? {
            let (name, target) = (self.name()?, self.path()?);
            self.changes
                .links
                .entry(id)
                .or_default()
                .insert(name, target);
        }
        Some(children)
    }

    fn attributes(&mut self) -> Option<Attributes> {
        let mode = self.from.small::<u16>().filter(|mode| *mode <= 0o7777)?;
        let (uid, gid) = (self.from.small()?, self.from.small()?);
        let (seconds, nanoseconds) = (self.from.signed()?, self.from.small()?);
        (nanoseconds < 1_000_000_000).then_some(())?;
        let mut xattrs = Xattrs::default();
        for _ in 0..self.from.count()? {
            let name = XattrName::new(self.from.text()?)?;
            xattrs.insert(name, self.from.text()?).ok()?;
        }
        Some(Attributes {
            mode,
            uid,
            gid,
            mtime: Time {
                seconds,
                nanoseconds,
            },
            xattrs,
        })
    }

    fn content(&mut self) -> Option<Content> {
        let size = self.from.number()?;
        let mut runs = Vec::new();
        for _ in 0..self.from.count()? {
            let (at, block, blocks) = (self.from.small()?, self.from.small()?, self.from.small()?);
            let blob = 0;
            runs.push(Run {
                at,
                blob,
                block,
                blocks,
            });
        }
        Content::new(size, runs)
    }

    fn device(&mut self) -> Option<Device> {
        Device::new(self.from.small()?, self.from.small()?)
    }

    fn name(&mut self) -> Option<Name> {
        Name::new(self.from.text()?)
    }

    fn path(&mut self) -> Option<Path> {
        let count = self.from.count()?;
        self.changes.count(count.checked_add(1)?).ok()?;
        (0..count).map(|_| self.name()).collect()
    }
}
