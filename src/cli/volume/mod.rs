//! `kvmlet volume`: disks that live longer than the instances that mount them.

mod prune;
mod shown;

use super::exit_code::ExitCode;
use super::format::{Format, Template};
use super::instances::{book, each};
use super::size::size;
use super::{Failed, Outcome};
use clap::{Args, Subcommand};
use kvmlet_command::plain::pretty_json;
use kvmlet_manager::{Error, LockedVolumes, Note, Users, Volume, VolumeName, Volumes};
use kvmlet_vmm::disk::{self, make_ext4};
use prune::Prune;
use shown::{heading, inspected, row};

/// How big a volume's disk is if nothing is said. No more of it is stored than has been written.
pub(super) const DEFAULT_BYTES: u64 = 8 << 30;
/// Less than that has no room for a file system with a journal.
const SMALLEST: u64 = 16 << 20;
/// What a file system's blocks are.
const BLOCK: u64 = 4096;

const TABLE: &str = "{{.Driver}}\t{{.Name}}\t{{.Size}}\t{{.Stored}}\t{{.Links}}";

/// Volumes: disks that are mounted by `kvmlet run -v NAME:/PATH`, and live longer than their instances.
#[derive(Args)]
pub(super) struct VolumeVerbs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Create(Create),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Inspect(Inspect),
    #[command(visible_alias = "remove")]
    Rm(Rm),
    Prune(Prune),
}

impl VolumeVerbs {
    pub fn run(self) -> Outcome {
        match self.verb {
            Verb::Create(verb) => verb.run(),
            Verb::Ls(verb) => verb.run(),
            Verb::Inspect(verb) => verb.run(),
            Verb::Rm(verb) => verb.run(),
            Verb::Prune(verb) => verb.run(),
        }
    }
}

/// Make a volume, or make one that is there bigger.
#[derive(Args)]
struct Create {
    /// How big its disk is, of which no more is stored than has been written: 512m, 20g [default: 8g]. No volume shrinks.
    #[arg(short, long, value_name = "SIZE", value_parser = bytes)]
    size: Option<u64>,
    /// Note something about it; can be given again.
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = label)]
    label: Vec<(String, String)>,
    /// What it is called [default: 64 hexadecimal digits].
    #[arg(value_name = "NAME")]
    name: Option<VolumeName>,
}

impl Create {
    fn run(self) -> Outcome {
        let book = book()?;
        let volumes = Volumes::of(&book)?;
        let locked = volumes.lock(&book)?;
        let name = match self.name {
            Some(name) => name,
            None => VolumeName::random().map_err(Failed::new)?,
        };
        let volume = make(&locked, &name, self.size, || Note {
            labels: self.label.iter().cloned().collect(),
            ..Note::new(false)
        })?;
        kvmlet_command::print(format!("{}\n", volume.name))?;
        Ok(0)
    }
}

/// The volume of that name, made if there is none. One that is there is grown to `bytes`, if that is more.
pub(super) fn make(
    volumes: &LockedVolumes<'_>,
    name: &VolumeName,
    bytes: Option<u64>,
    note: impl FnOnce() -> Note,
) -> Result<Volume, Failed> {
    match volumes.find(name) {
        Ok(volume) => {
            if let Some(bytes) = bytes.filter(|bytes| *bytes != volume.bytes) {
                volumes.grow(&volume, bytes)?;
            }
            Ok(volumes.find(name)?)
        }
        Err(Error::NoVolume { .. }) => volumes.create(name, &note(), |path| {
            let made = make_ext4(path, bytes.unwrap_or(DEFAULT_BYTES));
            made.map(drop).map_err(|error| unmade(name, error))
        }),
        Err(error) => Err(error.into()),
    }
}

fn unmade(name: &VolumeName, error: disk::Error) -> Failed {
    let help = match &error {
        disk::Error::MakerMissing { .. } => Some("install e2fsprogs"),
        disk::Error::Maker { .. } => Some("give it another size, such as 8g"),
        _ => None,
    };
    let failed = Failed::in_vain(format!("cannot make volume `{name}`"), error);
    match help {
        Some(help) => failed.help(help),
        None => failed,
    }
}

/// List volumes.
#[derive(Args)]
struct Ls {
    /// Print names only.
    #[arg(short, long)]
    quiet: bool,
    /// Those that pass: dangling=true|false, label=KEY[=VALUE] or name=PART; can be given again.
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// How to print: json, table, a template of fields such as {{.Name}}, or `table TEMPLATE`.
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Ls {
    fn run(self) -> Outcome {
        let format = Format::parse(self.format.as_deref(), TABLE)?;
        let book = book()?;
        let users = Users::of(&book)?;
        let mut volumes = Volumes::of(&book)?.list()?;
        for filter in &self.filter {
            let passes = passes(filter)?;
            volumes.retain(|volume| passes(volume, &users));
        }
        let text = match self.quiet {
            true => volumes
                .iter()
                .map(|volume| format!("{}\n", volume.name))
                .collect(),
            false => {
                let rows: Vec<_> = volumes.iter().map(|volume| row(volume, &users)).collect();
                format.render(&rows, heading)?
            }
        };
        kvmlet_command::print(text)?;
        Ok(0)
    }
}

type Passes<'a> = Box<dyn Fn(&Volume, &Users) -> bool + 'a>;

/// What a filter lets through.
fn passes(filter: &str) -> Result<Passes<'_>, Failed> {
    let wrong = || {
        let text = format!(
            "the filter `{filter}` is not dangling=true|false, label=KEY[=VALUE] or name=PART"
        );
        Failed::new(text)
    };
    let (key, value) = filter.split_once('=').ok_or_else(wrong)?;
    Ok(match (key, value) {
        ("dangling", "true" | "1") => {
            Box::new(|volume, users| users.of_volume(&volume.name).is_empty())
        }
        ("dangling", "false" | "0") => {
            Box::new(|volume, users| !users.of_volume(&volume.name).is_empty())
        }
        ("name", part) => Box::new(move |volume, _| volume.name.as_str().contains(part)),
        ("label", label) => Box::new(move |volume, _| has_label(volume, label)),
        _ => return Err(wrong()),
    })
}

fn has_label(volume: &Volume, wanted: &str) -> bool {
    let labels = &volume.note.labels;
    match wanted.split_once('=') {
        None => labels.contains_key(wanted),
        Some((key, value)) => labels.get(key).is_some_and(|it| it == value),
    }
}

/// Print all that is known of volumes, as JSON.
#[derive(Args)]
struct Inspect {
    /// Print by a template of fields, such as {{.Mountpoint}}, one line each.
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Their names.
    #[arg(value_name = "VOLUME", required = true)]
    names: Vec<VolumeName>,
}

impl Inspect {
    fn run(self) -> Outcome {
        let book = book()?;
        let (volumes, users) = (Volumes::of(&book)?, Users::of(&book)?);
        let (mut found, mut code) = (Vec::new(), 0);
        for name in &self.names {
            match volumes.find(name) {
                Ok(volume) => found.push(inspected(&volume, &users)),
                Err(error) => {
                    Failed::from(error).print();
                    code = ExitCode::NotDone.number();
                }
            }
        }
        let text = match self.format.as_deref() {
            None | Some("json") => pretty_json(&found)? + "\n",
            Some(template) => Template::parse(template)?.lines(&found)?,
        };
        kvmlet_command::print(text)?;
        Ok(code)
    }
}

/// Remove volumes that no instance has mounted, with all that is in them.
#[derive(Args)]
struct Rm {
    /// One that is not there is no error.
    #[arg(short, long)]
    force: bool,
    /// Their names.
    #[arg(value_name = "VOLUME", required = true)]
    names: Vec<String>,
}

impl Rm {
    fn run(self) -> Outcome {
        let book = book()?;
        let volumes = Volumes::of(&book)?;
        let locked = volumes.lock(&book)?;
        let users = Users::of(&book)?;
        each(&self.names, |text| {
            let name: VolumeName = text.parse().map_err(Failed::new)?;
            match locked.remove(&name, &users) {
                Err(Error::NoVolume { .. }) if self.force => Ok(text.into()),
                other => Ok(other.map(|()| text.into())?),
            }
        })
    }
}

/// A disk's size: whole blocks, as many as it takes.
fn bytes(text: &str) -> Result<u64, String> {
    match size(text).and_then(|bytes| bytes.checked_next_multiple_of(BLOCK)) {
        Some(bytes) if bytes >= SMALLEST => Ok(bytes),
        Some(_) => Err("a volume has 16m at least".into()),
        None => Err("a size is a number with a unit, such as 512m or 20g".into()),
    }
}

fn label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => Err("a label has a key: KEY=VALUE"),
        (key, value) => Ok((key.into(), value.into())),
    }
}
