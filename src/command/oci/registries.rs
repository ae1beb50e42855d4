//! The flags of verbs that talk to registries.

use clap::Args;

/// How to talk to a registry.
#[derive(Args)]
pub struct Talk {
    /// Talk to the registry without TLS. One at this host is asked without TLS first anyway.
    #[arg(long)]
    pub plain_http: bool,
}

/// Pull an image from a registry.
///
/// Its layers are checked while they come, and kept once, whichever images have them. What is there already is not
/// fetched again, and a connection that breaks goes on where it ended.
#[derive(Args)]
pub struct Pull {
    /// Say nothing but the image's name.
    #[arg(short, long)]
    pub quiet: bool,
    /// The same, but with progress on a terminal.
    #[arg(long, hide = true)]
    pub quiet_unless_terminal: bool,
    /// For which machine: os/architecture[/variant] [default: this one's].
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// How to talk to it.
    #[command(flatten)]
    pub talk: Talk,
    /// Its name, with a tag or a digest: nginx, quay.io/team/app:1.2, localhost:5000/app@sha256:...
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Push an image to a registry.
#[derive(Args)]
pub struct Push {
    /// Say nothing but the image's name.
    #[arg(short, long)]
    pub quiet: bool,
    /// How to talk to it.
    #[command(flatten)]
    pub talk: Talk,
    /// Its name, which says where to: `kvmlet tag` gives it one.
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Search a registry for images.
///
/// Docker Hub is searched unless another registry stands in front: `kvmlet search localhost:5000/app`. One that has no search is asked
/// for the list of its repositories, and those are told that have the text in their names; `REGISTRY/` lists all.
#[derive(Args)]
pub struct Search {
    /// Only those that pass: is-official=true|false, stars=NUMBER, of which an image has at least so many; can be given again.
    #[arg(short, long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// How to print it: `table`, `json`, or a template: {{.Name}} {{.Description}} {{.StarCount}} {{.IsOfficial}}
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// How many are told at most.
    #[arg(long, value_name = "NUMBER", default_value_t = 25, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub limit: u8,
    /// Show descriptions in full.
    #[arg(long)]
    pub no_trunc: bool,
    /// How to talk to it.
    #[command(flatten)]
    pub talk: Talk,
    /// What is searched for, behind a registry's name if it is not Docker Hub that has it.
    #[arg(value_name = "[REGISTRY/]TEXT")]
    pub text: String,
}

/// Log in to a registry: keep a name and a password where docker has them.
///
/// They are tried first. What keeps them is `~/.docker/config.json`, or the helper that it names.
#[derive(Args)]
pub struct Login {
    /// The name [default: asks].
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,
    /// The password; others see it on the command line [default: asks].
    #[arg(
        short,
        long,
        value_name = "PASSWORD",
        conflicts_with = "password_stdin"
    )]
    pub password: Option<String>,
    /// Read the password from standard input.
    #[arg(long)]
    pub password_stdin: bool,
    /// How to talk to it.
    #[command(flatten)]
    pub talk: Talk,
    /// The registry.
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub registry: String,
}

/// Forget the password for a registry.
#[derive(Args)]
pub struct Logout {
    /// The registry.
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub registry: String,
}
