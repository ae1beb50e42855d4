//! Command lines of the manual are understood: those of README.md and of all pages in docs/.

use super::{Cli, Verb};
use clap::CommandFactory;
use clap::error::ErrorKind;
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

/// The lines that are kvmlet's, as far as they are its: in the text, and after a prompt.
fn lines(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut is_block = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_block = !is_block;
            continue;
        }
        let own = |part: &str| {
            let words = part.strip_prefix("kvmlet ")?;
            // What a shell does with it is not kvmlet's.
            let end = [" &", " >", " | ", " 3>", "; ", " #", " ||"];
            let ends = end.iter().filter_map(|end| words.find(end));
            let words = &words[..ends.min().unwrap_or(words.len())];
            // A dependency of that name is no command.
            (!words.starts_with('=')).then(|| words.replace("\\|", "|"))
        };
        match is_block {
            true => found.extend(line.strip_prefix("$ ").and_then(own)),
            false => found.extend(line.split('`').skip(1).step_by(2).filter_map(own)),
        }
    }
    found
}

/// Its words: the first of several that are told, and neither dots nor brackets, which are for people.
fn words(line: &str) -> Vec<String> {
    let words = line.split_whitespace().map(|word| {
        let word = word.trim_matches(['[', ']', '"', '\'']).replace("...", "");
        let word = if word == "FD" { "3".into() } else { word };
        word.split('|').next().unwrap_or_default().to_owned()
    });
    words.filter(|word| !word.is_empty()).collect()
}

#[test]
fn command_lines_of_the_manual_are_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = read_dir(root.join("docs")).unwrap();
    let mut pages: Vec<PathBuf> = docs.map(|entry| entry.unwrap().path()).collect();
    pages.retain(|page| page.extension().is_some_and(|it| it == "md"));
    pages.push(root.join("README.md"));
    let mut count = 0;
    let mut wrong = Vec::new();
    for page in pages {
        for line in lines(&read_to_string(&page).unwrap()) {
            count += 1;
            let command = Cli::<Verb>::command();
            let read =
                command.try_get_matches_from(["kvmlet".into()].into_iter().chain(words(&line)));
            let Err(error) = read else {
                continue;
            };
            // A line that says no more than what it is about, and values that stand for others.
            let is_short = [
                ErrorKind::MissingRequiredArgument,
                ErrorKind::MissingSubcommand,
                ErrorKind::DisplayHelp,
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
                ErrorKind::DisplayVersion,
            ];
            let is_name = error.kind() == ErrorKind::InvalidValue && line.starts_with("boot --");
            let is_name = is_name && error.to_string().contains("a value is required");
            if !is_short.contains(&error.kind()) && !is_name {
                wrong.push(format!("{}: kvmlet {line}: {error}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 80, "{count}");
}
