//! What the stable crates promise: their public items, as they were when somebody last looked at a change of them.
//!
//! `tests/api` has a listing of each. Who changes one on purpose writes it anew, with `KVMLET_WRITE_API=1 cargo test --test
//! api`, and whoever reviews that sees what users of the crate will.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

#[path = "api/passed_on.rs"]
mod passed_on;

use std::path::{Path, PathBuf};
use syn::{Attribute, Fields, File, ImplItem, Item, Visibility, punctuated::Punctuated};

/// Crates whose public items follow semantic versioning, by the directories of their sources.
const STABLE: [&str; 3] = ["spec", "control", "kvmlet"];
/// Set, the listings are written instead of compared.
const WRITE: &str = "KVMLET_WRITE_API";

#[test]
fn public_items_are_those_that_were_looked_at() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in STABLE {
        let mut listing = module(&root.join("src").join(name).join("lib.rs"), true);
        listing.extend(passed_on::items(&listing, root, &STABLE));
        let text = prettyplease::unparse(&File {
            shebang: None,
            attrs: Vec::new(),
            items: listing,
        });
        let path = root.join("tests/api").join(format!("{name}.txt"));
        if std::env::var_os(WRITE).is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let looked_at = std::fs::read_to_string(&path).unwrap();
        if let Some((line, (now, then))) = first_difference(&text, &looked_at) {
            panic!(
                "{}:{line}: `{then}` is `{now}` now; if that is meant, {WRITE}=1 writes the listing anew",
                path.display()
            );
        }
    }
}

/// The first line that differs, counted from one, and what it is in both.
fn first_difference<'a>(a: &'a str, b: &'a str) -> Option<(usize, (&'a str, &'a str))> {
    let lines = a.lines().count().max(b.lines().count());
    let line = |text: &'a str, at: usize| text.lines().nth(at).unwrap_or("(nothing)");
    (0..lines)
        .map(|at| (at + 1, (line(a, at), line(b, at))))
        .find(|(_, (a, b))| a != b)
}

/// What is public of the module in a file, and of those within it. A private module's public items are listed as well:
/// others may name them.
fn module(path: &Path, is_root: bool) -> Vec<Item> {
    let text = std::fs::read_to_string(path).unwrap();
    let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let stem = path.file_stem().unwrap();
    let directory = path.parent().unwrap();
    let below = match is_root || stem == "mod" {
        true => directory.to_owned(),
        false => directory.join(stem),
    };
    file.items
        .into_iter()
        .filter_map(|item| public(item, &below))
        .collect()
}

fn file_of(name: &str, below: &Path) -> PathBuf {
    let beside = below.join(format!("{name}.rs"));
    match beside.exists() {
        true => beside,
        false => below.join(name).join("mod.rs"),
    }
}

/// An item without what only its crate can see; none if that is all of it.
fn public(item: Item, below: &Path) -> Option<Item> {
    let is_public = |visibility: &Visibility| matches!(visibility, Visibility::Public(_));
    let attributes = match &item {
        Item::Mod(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Macro(it) => &it.attrs,
        _ => &Vec::new(),
    };
    // What there is with a feature is promised, too.
    let is_for_some = |it: &Attribute| {
        let list = it.meta.require_list();
        it.path().is_ident("cfg")
            && !list.is_ok_and(|list| list.tokens.to_string().starts_with("feature"))
    };
    if attributes.iter().any(is_for_some) {
        return None; // for tests
    }
    match item {
        Item::Mod(mut it) => {
            let items = match it.content {
                Some((_, items)) => {
                    let below = below.join(it.ident.to_string());
                    let items = items.into_iter();
                    items.filter_map(|item| public(item, &below)).collect()
                }
                None => module(&file_of(&it.ident.to_string(), below), false),
            };
            let is_empty = items.is_empty();
            it.content = Some((Default::default(), items));
            it.semi = None;
            it.attrs.clear();
            (!is_empty).then_some(Item::Mod(it))
        }
        Item::Struct(mut it) if is_public(&it.vis) => {
            tell(&mut it.attrs);
            match &mut it.fields {
                Fields::Named(fields) => seen(&mut fields.named),
                Fields::Unnamed(fields) => seen(&mut fields.unnamed),
                Fields::Unit => {}
            }
            Some(Item::Struct(it))
        }
        Item::Enum(mut it) if is_public(&it.vis) => {
            tell(&mut it.attrs);
            for variant in &mut it.variants {
                tell(&mut variant.attrs);
                for field in &mut variant.fields {
                    tell(&mut field.attrs);
                }
            }
            Some(Item::Enum(it))
        }
        Item::Fn(mut it) if is_public(&it.vis) => {
            tell(&mut it.attrs);
            it.block.stmts.clear();
            Some(Item::Fn(it))
        }
        Item::Trait(mut it) if is_public(&it.vis) => {
            tell(&mut it.attrs);
            for item in &mut it.items {
                if let syn::TraitItem::Fn(function) = item {
                    tell(&mut function.attrs);
                    function.default = None;
                    function.semi_token = Some(Default::default());
                }
            }
            Some(Item::Trait(it))
        }
        Item::Impl(it) => implementation(it),
        Item::Const(mut it) if is_public(&it.vis) => {
            tell(&mut it.attrs);
            Some(Item::Const(it))
        }
        Item::Type(mut it) if is_public(&it.vis) => {
            tell(&mut it.attrs);
            Some(Item::Type(it))
        }
        Item::Use(mut it) if is_public(&it.vis) => {
            tell(&mut it.attrs);
            Some(Item::Use(it))
        }
        _ => None,
    }
}

/// Of a type's own functions those that are public; that it has a trait.
fn implementation(mut it: syn::ItemImpl) -> Option<Item> {
    tell(&mut it.attrs);
    let has_trait = it.trait_.is_some();
    it.items.retain_mut(|item| match item {
        ImplItem::Fn(function) if is_hidden(&function.attrs) => false,
        ImplItem::Fn(function) if matches!(function.vis, Visibility::Public(_)) => {
            tell(&mut function.attrs);
            function.block.stmts.clear();
            true
        }
        ImplItem::Const(constant) if matches!(constant.vis, Visibility::Public(_)) => {
            tell(&mut constant.attrs);
            true
        }
        ImplItem::Type(_) => has_trait,
        _ => false,
    });
    (has_trait || !it.items.is_empty()).then_some(Item::Impl(it))
}

/// Of kvmlet's own crates, whoever else can call it.
fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|it| {
        it.path().is_ident("doc")
            && matches!(&it.meta, syn::Meta::List(list) if list.tokens.to_string() == "hidden")
    })
}

fn seen(fields: &mut Punctuated<syn::Field, syn::Token![,]>) {
    let all = std::mem::take(fields).into_iter();
    *fields = all
        .filter(|field| matches!(field.vis, Visibility::Public(_)))
        .map(|mut field| {
            tell(&mut field.attrs);
            field
        })
        .collect();
}

/// Leaves what users of an item have to know of it: the traits that come with it, and what may be added to it.
fn tell(attributes: &mut Vec<Attribute>) {
    attributes.retain(|attribute| {
        ["derive", "non_exhaustive", "must_use", "deprecated"]
            .iter()
            .any(|known| attribute.path().is_ident(known))
    });
}
