//! What a stable crate passes on of an internal one: its listing has these items as well, from where they are defined.

use super::{file_of, module, public};
use std::path::{Path, PathBuf};
use syn::{Ident, Item, ItemMod, ItemUse, Type, UseTree, Visibility};

/// A name as a `use` line has it, by its path, and the one that it is given.
struct Passed {
    path: Vec<String>,
    name: String,
}

/// What a listing's `use` lines name in our crates but the stable ones, in a module for each crate.
pub fn items(listing: &[Item], repository: &Path, stable: &[&str]) -> Vec<Item> {
    let mut passed = Vec::new();
    uses(listing, &mut passed);
    let mut modules: Vec<ItemMod> = Vec::new();
    for it in passed {
        let Some(ours) = it.path[0].strip_prefix("kvmlet_") else {
            continue;
        };
        if stable.contains(&ours) {
            continue;
        }
        let root = match ours {
            "contract" => repository.join("images/contract/src/lib.rs"),
            ours => repository.join("src").join(ours).join("lib.rs"),
        };
        let (file, name) = definition(&root, &root, &it.path[1..])
            .unwrap_or_else(|| panic!("{:?} is not found", it.path));
        let found = match name {
            Some(name) => of(&file, &name),
            None => module(&file, false),
        };
        assert!(!found.is_empty(), "{:?} is not public", it.path);
        let place: Ident = syn::parse_str(&it.path[..it.path.len() - 1].join("_")).unwrap();
        match modules.iter_mut().find(|known| known.ident == place) {
            Some(known) => known.content.as_mut().unwrap().1.extend(found),
            None => modules.push(ItemMod {
                attrs: Vec::new(),
                vis: Visibility::Inherited,
                unsafety: None,
                mod_token: Default::default(),
                ident: place,
                content: Some((Default::default(), found)),
                semi: None,
            }),
        }
    }
    modules.into_iter().map(Item::Mod).collect()
}

/// All names that public `use` lines of a listing pass on.
fn uses(listing: &[Item], passed: &mut Vec<Passed>) {
    for item in listing {
        match item {
            Item::Use(it) => leaves(&mut Vec::new(), &it.tree, passed),
            Item::Mod(it) => uses(&it.content.as_ref().unwrap().1, passed),
            _ => {}
        }
    }
}

fn leaves(before: &mut Vec<String>, tree: &UseTree, passed: &mut Vec<Passed>) {
    let (last, name) = match tree {
        UseTree::Path(it) => {
            before.push(it.ident.to_string());
            leaves(before, &it.tree, passed);
            before.pop();
            return;
        }
        UseTree::Group(it) => {
            let trees = it.items.iter();
            return trees.for_each(|tree| leaves(before, tree, passed));
        }
        UseTree::Name(it) => (it.ident.to_string(), it.ident.to_string()),
        UseTree::Rename(it) => (it.ident.to_string(), it.rename.to_string()),
        UseTree::Glob(_) => panic!("what `{}::*` passes on cannot be told", before.join("::")),
    };
    let path = [before.clone(), vec![last]].concat();
    passed.push(Passed { path, name });
}

/// The file that defines what a path leads to from a module's file, and its name there; none for a module, which is all of
/// its file.
fn definition(root: &Path, file: &Path, path: &[String]) -> Option<(PathBuf, Option<String>)> {
    let Some((first, rest)) = path.split_first() else {
        return Some((file.to_owned(), None));
    };
    let text = std::fs::read_to_string(file).unwrap();
    let items = syn::parse_file(&text).unwrap().items;
    let below = match file.file_stem()?.to_str()? {
        "lib" | "mod" => file.parent()?.to_owned(),
        stem => file.parent()?.join(stem),
    };
    if first == "crate" {
        return definition(root, root, rest);
    }
    let has_module = |it: &Item| matches!(it, Item::Mod(it) if it.ident == first);
    if items.iter().any(has_module) {
        return definition(root, &file_of(first, &below), rest);
    }
    if rest.is_empty() && items.iter().any(|it| defines(it, first)) {
        return Some((file.to_owned(), Some(first.clone())));
    }
    let mut passed = Vec::new();
    for item in items {
        if let Item::Use(ItemUse { tree, .. }) = item {
            leaves(&mut Vec::new(), &tree, &mut passed);
        }
    }
    let from = passed.into_iter().find(|it| it.name == *first)?;
    definition(root, file, &[&from.path, rest].concat())
}

fn defines(item: &Item, name: &str) -> bool {
    match item {
        Item::Struct(it) => it.ident == name,
        Item::Enum(it) => it.ident == name,
        Item::Trait(it) => it.ident == name,
        Item::Type(it) => it.ident == name,
        Item::Fn(it) => it.sig.ident == name,
        _ => false,
    }
}

/// The public part of something that a file defines, and of what the file implements for it.
fn of(file: &Path, name: &str) -> Vec<Item> {
    let text = std::fs::read_to_string(file).unwrap();
    let items = syn::parse_file(&text).unwrap().items.into_iter();
    let is_meant = |item: &Item| match item {
        Item::Impl(it) => matches!(&*it.self_ty, Type::Path(path) if path.path.is_ident(name)),
        item => defines(item, name),
    };
    let below = file.parent().unwrap();
    items
        .filter(is_meant)
        .filter_map(|item| public(item, below))
        .collect()
}
