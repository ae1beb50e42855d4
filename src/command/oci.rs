//! The command line of `kvmlet-oci`, which `kvmlet completions` and `kvmlet man` have to know, too: `kvmlet pull` and the
//! other verbs about images execute it.

mod registries;

pub use registries::{Login, Logout, Pull, Push, Search, Talk};

use crate::Verbosity;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::path::PathBuf;

/// Images of services: pulled from registries, read from archives, kept and listed.
#[derive(Parser)]
#[command(
    name = "kvmlet-oci",
    bin_name = "kvmlet",
    version,
    max_term_width = 100,
    propagate_version = true
)]
pub struct Oci {
    /// How much is said.
    #[command(flatten)]
    pub verbosity: Verbosity,
    /// What is done.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What is done: the words about each are those of its flags.
#[derive(Subcommand)]
#[allow(missing_docs)]
pub enum Verb {
    #[command(flatten)]
    Both(Both),
    Images(List),
    Rmi(Remove),
    Search(Search),
    Login(Login),
    Logout(Logout),
    Diff(Diff),
    Commit(Commit),
    /// Do something with images: verbs that docker has in this place.
    #[command(subcommand)]
    Image(Image),
}

/// What stands alone and behind `image`.
#[derive(Subcommand)]
#[allow(missing_docs)]
pub enum Both {
    Pull(Pull),
    Push(Push),
    Tag(Tag),
    Save(Save),
    Load(Load),
    Import(Import),
    Build(Box<Build>),
}

/// What stands behind `image`.
#[derive(Subcommand)]
#[allow(missing_docs)]
pub enum Image {
    #[command(flatten)]
    Both(Both),
    #[command(visible_alias = "list")]
    Ls(List),
    #[command(visible_alias = "remove")]
    Rm(Remove),
    Inspect(Inspect),
    History(History),
    Check(Check),
    Outdated(Outdated),
    Prune(Prune),
}

/// Give an image another name.
#[derive(Args)]
pub struct Tag {
    /// The image, by a name or its id.
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// The new name.
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Write images to an archive, as an OCI layout that docker and podman load.
#[derive(Args)]
pub struct Save {
    /// Where to [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The images, by names or ids.
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

/// Read images from an archive: an OCI layout, or what `docker save` or `podman save` writes, compressed or not.
#[derive(Args)]
pub struct Load {
    /// From where: an archive, or the directory of an OCI layout [default: standard input].
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
}

/// Make an image of the tree of a root file system: a tar archive, compressed or not.
#[derive(Args)]
pub struct Import {
    /// The archive, `-` for standard input, or a directory. A directory's files are root's in the image.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What the image is to be called.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// Build an image from a Containerfile.
///
/// buildah does it, or podman, whichever is installed, in a storage of its own, where steps are kept for the next build until `kvmlet image prune --all`.
/// Images that a Containerfile is built on are those that are here, or are pulled. Commands of a Containerfile run on this host, in containers of
/// that program's: a Containerfile is to be trusted as much as a script is.
#[derive(Args)]
pub struct Build {
    /// What the image is to be called; can be given again.
    #[arg(short, long, value_name = "NAME")]
    pub tag: Vec<String>,
    /// The Containerfile, `-` for standard input [default: Containerfile or Dockerfile in the directory].
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The value of an argument (`ARG`): NAME=VALUE, or a variable of the environment; can be given again.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// A label; can be given again.
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Build up to this stage.
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Do each step again, also if it was done before.
    #[arg(long)]
    pub no_cache: bool,
    /// Pull what the image is built on again, if the registry has something newer.
    #[arg(long)]
    pub pull: bool,
    /// For which machine; only this one's.
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// What commands may reach meanwhile: none, host, or as the program calls it.
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<String>,
    /// Say nothing but the image's id.
    #[arg(short, long)]
    pub quiet: bool,
    /// How to talk to registries.
    #[command(flatten)]
    pub talk: Talk,
    /// The directory that files are copied from; `-` for none, and a Containerfile on standard input.
    #[arg(value_name = "DIRECTORY")]
    pub context: PathBuf,
}

/// List the images that are here.
#[derive(Args)]
pub struct List {
    /// Only ids.
    #[arg(short, long)]
    pub quiet: bool,
    /// Show the digests that registries know them by.
    #[arg(long)]
    pub digests: bool,
    /// Show ids in full.
    #[arg(long)]
    pub no_trunc: bool,
    /// How to print it: `table`, `json`, or a template: {{.Repository}}:{{.Tag}} {{.Size}}
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Only those that pass: dangling=true|false, reference=PATTERN, label=KEY[=VALUE]; can be given again.
    #[arg(short, long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Only those of this name, with any tag if it has none.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// Remove names of images, and images that have none left.
#[derive(Args)]
pub struct Remove {
    /// Remove an image by its id with all its names; and do not fail where there is none.
    #[arg(short, long)]
    pub force: bool,
    /// The images, by names or ids.
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

/// List what an instance that runs has changed of its root.
///
/// `A` is new, `C` has changed, `D` is gone. What is in memory or on a volume (/tmp, /run, what is mounted) is not of the root.
#[derive(Args)]
pub struct Diff {
    /// Its name, its id, or a beginning of that.
    #[arg(value_name = "INSTANCE")]
    pub instance: String,
}

/// Make an image of what an instance that runs has made of its own.
///
/// What has changed of its root is a layer above its image's, whose configuration the new one has. The service goes on
/// meanwhile: a file that it writes is as far as it is. What has to be of one moment is written before, or the service is told to rest.
#[derive(Args)]
pub struct Commit {
    /// Who has made it.
    #[arg(short, long, value_name = "AUTHOR")]
    pub author: Option<String>,
    /// What was done.
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// An instruction of a Containerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR; can be given again.
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// Its name, its id, or a beginning of that.
    #[arg(value_name = "INSTANCE")]
    pub instance: String,
    /// What the image is to be called.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// Tell all that is known of images, as JSON.
#[derive(Args)]
pub struct Inspect {
    /// How to print it: `json`, or a template: {{.Config.Entrypoint}}
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// The images, by names or ids.
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

/// Tell how an image was made, the last step first.
#[derive(Args)]
pub struct History {
    /// Show commands in full.
    #[arg(long)]
    pub no_trunc: bool,
    /// How to print it: `table`, `json`, or a template: {{.CreatedBy}}
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// The image, by a name or its id.
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

/// Check that what is kept of images is what their digests say.
#[derive(Args)]
pub struct Check {}

/// List packages in images that there are newer ones of.
///
/// Those are Debian's and others of dpkg, or Alpine's, and what is new is what this host's package index says of the release that an image is made of:
/// `apt update` renews it, and a line of sources.list adds another release; for Alpine it is what `apk update` leaves in /var/cache/apk.
#[derive(Args)]
pub struct Outdated {
    /// Only the names of such images.
    #[arg(short, long)]
    pub quiet: bool,
    /// How to print it: `table`, `json`, or a template: {{.Image}} {{.Package}} {{.Installed}} {{.Available}}
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// The images, by names or ids [default: all].
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// Remove images without a name.
#[derive(Args)]
pub struct Prune {
    /// Remove all images that no instance has, and what builds have kept.
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub force: bool,
}

/// Each verb's command line, as `kvmlet VERB` has it.
pub fn verbs() -> impl Iterator<Item = clap::Command> {
    let command = Oci::command();
    let verbs: Vec<clap::Command> = command.get_subcommands().cloned().collect();
    verbs.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Oci::command().debug_assert();
    }
}
