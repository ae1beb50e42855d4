//! Verbs about images, which are a program of their own: what talks to registries is in no process of a VM's.

use super::beside::{become_program, help};
use super::{Outcome, Verbosity};
use clap::{Args, Subcommand};
use kvmlet_command::oci;
use std::ffi::{OsStr, OsString};

const PROGRAM: &str = "kvmlet-oci";

/// What is passed on as it is.
#[derive(Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(super) struct Words {
    /// What to do: see its `--help`.
    #[arg(
        value_name = "ARGUMENTS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(super) arguments: Vec<OsString>,
}

/// What `kvmlet-oci` does.
#[derive(Subcommand)]
pub(super) enum ImageVerb {
    /// Pull an image from a registry.
    Pull(Words),
    /// Push an image to a registry.
    Push(Words),
    /// List the images that are here.
    Images(Words),
    /// Remove names of images, and images that have none left.
    Rmi(Words),
    /// Give an image another name.
    Tag(Words),
    /// Write images to an archive.
    Save(Words),
    /// Read images from an archive.
    Load(Words),
    /// Make an image of the tree of a root file system.
    Import(Words),
    /// Build an image from a Containerfile.
    Build(Words),
    /// Search a registry for images.
    Search(Words),
    /// Log in to a registry.
    Login(Words),
    /// Forget the password for a registry.
    Logout(Words),
    /// List what an instance has changed of its root.
    Diff(Words),
    /// Make an image of what an instance has made of its own.
    Commit(Words),
    /// Inspect images, their history; check and prune what is kept.
    Image(Words),
}

impl ImageVerb {
    /// Does it.
    pub fn run(self, verbosity: &Verbosity) -> Outcome {
        let (verb, words) = match self {
            Self::Pull(words) => ("pull", words),
            Self::Push(words) => ("push", words),
            Self::Images(words) => ("images", words),
            Self::Rmi(words) => ("rmi", words),
            Self::Tag(words) => ("tag", words),
            Self::Save(words) => ("save", words),
            Self::Load(words) => ("load", words),
            Self::Import(words) => ("import", words),
            Self::Build(words) => ("build", words),
            Self::Search(words) => ("search", words),
            Self::Login(words) => ("login", words),
            Self::Logout(words) => ("logout", words),
            Self::Diff(words) => ("diff", words),
            Self::Commit(words) => ("commit", words),
            Self::Image(words) => ("image", words),
        };
        let verbosity = verbosity.arguments().map(OsStr::to_os_string);
        let verb = std::iter::once(verb.into());
        become_program(PROGRAM, verbosity.chain(verb).chain(words.arguments))
    }
}

/// What `kvmlet help pull` asks for: only the program knows.
pub(super) fn explain() -> Option<Outcome> {
    let asked = help()?;
    let verb = asked.first()?;
    oci::verbs().find(|known| verb == known.get_name())?;
    let help = std::iter::once(OsString::from("help"));
    Some(become_program(PROGRAM, help.chain(asked)))
}
