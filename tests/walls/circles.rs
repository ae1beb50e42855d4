//! Circles of imports: two files that need each other are one, or hide a third.
//!
//! What a file imports is read from its `use` lines, and through what others pass on (`pub use`). Two kinds of circle
//! are none: a room's door (`mod.rs`) opens to what is inside, which may look out of it; and an error names what its
//! user named, so a room's `error.rs` may know the types of those that fail with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A module by its path within its crate: `devices`, `virtio`, `queue`.
type Module = Vec<String>;

/// A crate's files, with what each imports.
struct Sources(BTreeMap<Module, Vec<Import>>);

/// A path as a `use` line has it.
type Import = Module;

impl Sources {
    fn read(directory: &Path) -> Self {
        let mut found = Vec::new();
        super::sources(directory, &mut found);
        let mut files = BTreeMap::new();
        for path in found {
            let inside = path.strip_prefix(directory).unwrap().with_extension("");
            let mut module: Module = inside
                .iter()
                .map(|part| part.to_str().unwrap().to_owned())
                .collect();
            if module.iter().any(|part| part.ends_with("tests")) {
                continue;
            }
            let is_door = ["mod", "lib", "main"].contains(&module.last().unwrap().as_str());
            if is_door {
                module.pop();
            }
            let text = std::fs::read_to_string(&path).unwrap();
            files.insert(module, imports(&text));
        }
        Self(files)
    }

    /// The path from the crate's root of what a file's import means; `None` for other crates.
    fn absolute(&self, module: &Module, import: &Import) -> Option<Module> {
        let (first, rest) = import.split_first()?;
        let mut base = module.clone();
        match first.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                let ups = import.iter().take_while(|part| *part == "super").count();
                base.truncate(base.len().checked_sub(ups)?);
                base.extend_from_slice(&import[ups..]);
                return Some(base);
            }
            // A module inside of this one.
            _ => {
                base.push(first.clone());
                self.0.contains_key(&base).then_some(())?;
            }
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// The file that something is in: the one that its path names, or the one that passes it on from another.
    fn home(&self, path: &[String], passes: u32) -> Option<Module> {
        let length = (0..=path.len())
            .rev()
            .find(|end| self.0.contains_key(&path[..*end]))?;
        let (file, name) = (path[..length].to_vec(), path.get(length));
        let passed_on = name.filter(|_| passes > 0).and_then(|name| {
            let lines = self.0[&file].iter();
            let mut from = lines.filter(|line| line.len() > 1 && line.last() == Some(name));
            from.find_map(|line| {
                let origin = self.absolute(&file, line)?;
                self.home(&origin, passes - 1).filter(|home| *home != file)
            })
        });
        Some(passed_on.unwrap_or(file))
    }

    /// The files that a file needs, without the doors that it is behind.
    fn needs(&self, module: &Module) -> BTreeSet<Module> {
        let homes = self.0[module].iter().filter_map(|import| {
            let path = self.absolute(module, import)?;
            self.home(&path, 4)
        });
        homes.filter(|home| !module.starts_with(home)).collect()
    }

    /// Files that need each other.
    fn circles(&self) -> BTreeSet<[String; 2]> {
        let is_error = |module: &Module| module.last().is_some_and(|name| name == "error");
        let files = self.0.keys().filter(|module| !is_error(module));
        let needs: BTreeMap<_, _> = files.map(|file| (file, self.needs(file))).collect();
        let needs_back = |file: &Module, other: &Module| {
            file < other && needs.get(other).is_some_and(|others| others.contains(file))
        };
        let pairs = needs.iter().flat_map(|(file, others)| {
            let others = others.iter().filter(|other| needs_back(file, other));
            others
                .map(|other| [file.join("/"), other.join("/")])
                .collect::<Vec<_>>()
        });
        pairs.collect()
    }
}

/// What a file imports, without its tests.
fn imports(text: &str) -> Vec<Import> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code = text.lines().map(|line| line.split("//").next().unwrap());
    let code: String = code.collect::<Vec<_>>().join("\n");
    let statements = code.split(';').filter_map(|statement| {
        let last = statement.trim();
        let (before, tree) = last.rsplit_once("use ")?;
        let before = before.lines().last().unwrap_or_default().trim();
        let is_import = before.is_empty() || before == "pub" || before.starts_with("pub(");
        is_import.then(|| tree.to_owned())
    });
    statements.flat_map(|tree| expand(&[], &tree)).collect()
}

/// The paths in a tree of braces.
fn expand(before: &[String], tree: &str) -> Vec<Import> {
    let (stem, inside) = match tree.split_once('{') {
        Some((stem, inside)) => (stem, Some(inside.trim_end().strip_suffix('}').unwrap())),
        None => (tree.split(" as ").next().unwrap(), None),
    };
    let mut path = before.to_vec();
    let parts = stem.split("::").map(str::trim);
    path.extend(parts.filter(|part| !part.is_empty()).map(Into::into));
    let Some(inside) = inside else {
        return vec![path];
    };
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    for (at, letter) in inside.char_indices().chain([(inside.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inside[start..at].trim().is_empty() {
                    paths.extend(expand(&path, &inside[start..at]));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    paths
}

#[test]
fn no_two_files_need_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeSet::new();
    for directory in std::fs::read_dir(&root).unwrap() {
        let directory = directory.unwrap();
        let name = directory.file_name().into_string().unwrap();
        let sources = Sources::read(&directory.path());
        assert!(!sources.0.is_empty(), "{name}");
        let circles = sources.circles().into_iter();
        found.extend(circles.map(|[one, other]| [name.clone(), one, other]));
    }
    assert_eq!(found, BTreeSet::new(), "a crate and two files of it");
}

#[test]
fn circles_are_found() {
    let file = |name: &str, text: &str| (vec![name.to_owned()], imports(text));
    let door = (
        Vec::new(),
        imports("pub mod a;\npub use a::{Ab, Ac as Ad};\nuse b::B;"),
    );
    let sources = |b: &str| {
        let a = file(
            "a",
            "use crate::{\n    b::{self, B},\n    c::C,\n};\nuse std::io;",
        );
        Sources([door.clone(), a, file("b", b), file("c", "use super::d;")].into())
    };
    let circle = BTreeSet::from([["a".to_owned(), "b".to_owned()]]);
    assert_eq!(sources("pub(super) use super::a::Ab;").circles(), circle);
    // By what the door passes on.
    assert_eq!(sources("use super::{Ab, Bd};").circles(), circle);
    for harmless in [
        "use super::Bd;",
        "// use super::a::Ab;",
        "fn use_it() { a::use() }",
        "#[cfg(test)]\nmod tests {\n    use super::a::Ab;\n}",
    ] {
        assert!(sources(harmless).circles().is_empty(), "{harmless}");
    }
}
