//! Firecracker's command line.

use super::machine::PCI;
use super::model::Level;
use std::ffi::OsString;
use std::path::PathBuf;

/// As clients read the version: of the API that is answered here.
pub const VERSION: &str = "1.17.0";
/// Where the API's socket is if nothing is said.
const API_SOCKET: &str = "/run/firecracker.socket";
/// The longest body of a request if nothing is said.
const PAYLOAD_BYTES: usize = 51200;
const MOST_PAYLOAD_BYTES: usize = 1 << 20;
const LONGEST_ID: usize = 64;

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    pub api_socket: Option<PathBuf>,
    pub id: String,
    pub config_file: Option<PathBuf>,
    pub log_path: Option<PathBuf>,
    pub level: Option<Level>,
    pub show_level: bool,
    pub show_log_origin: bool,
    pub metrics_path: Option<PathBuf>,
    pub no_walls: bool,
    pub payload_bytes: usize,
    /// When the process was wanted, by the clock that never stops, in microseconds.
    pub start_time_us: Option<u64>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Serve(Box<Flags>),
    /// A text, and no more.
    Print(String),
}

/// What flags there are, whether they have a value, and what they are about.
const KNOWN: &[(&str, bool, &str)] = &[
    (
        "api-sock",
        true,
        "Path of the API's socket [default: /run/firecracker.socket]",
    ),
    (
        "boot-timer",
        false,
        "Have the guest tell when it has booted: it can, always",
    ),
    (
        "config-file",
        true,
        "JSON file that describes the VM, which starts at once",
    ),
    ("describe-snapshot", true, "Not supported"),
    ("enable-pci", false, "Not supported"),
    ("help", false, "Print this"),
    (
        "http-api-max-payload-size",
        true,
        "Longest body of a request, in bytes [default: 51200]",
    ),
    ("id", true, "Id of the VM [default: anonymous-instance]"),
    (
        "level",
        true,
        "How much is logged: Error, Warning, Info, Debug, Trace, Off",
    ),
    (
        "log-path",
        true,
        "File or pipe that messages go to, instead of standard error",
    ),
    ("metadata", true, "Not supported"),
    ("metrics-path", true, "File or pipe that measurements go to"),
    ("mmds-size-limit", true, "Not supported"),
    ("module", true, "Not supported"),
    (
        "no-api",
        false,
        "Serve no API: --config-file describes the VM",
    ),
    (
        "no-seccomp",
        false,
        "Build no walls around the VM's process",
    ),
    (
        "parent-cpu-time-us",
        true,
        "CPU time of who has started this process",
    ),
    ("seccomp-filter", true, "Not supported"),
    ("show-level", false, "Log levels, too"),
    (
        "show-log-origin",
        false,
        "Log where messages come from, too",
    ),
    ("snapshot-version", false, "Print the version of snapshots"),
    (
        "start-time-cpu-us",
        true,
        "CPU time when this process was wanted",
    ),
    ("start-time-us", true, "When this process was wanted"),
    ("version", false, "Print the version"),
];

/// Reads a command line.
pub fn read(words: &[OsString]) -> Result<Wanted, String> {
    let given = given(words)?;
    let has = |name: &str| given.iter().any(|(known, _)| *known == name);
    let value = |name: &str| {
        let mut given = given.iter().filter(|(known, _)| *known == name);
        given.next().and_then(|(_, value)| value.clone())
    };
    let number = |name: &str| match value(name).map(|text| text.parse::<u64>()) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => Err(format!("--{name} is a whole number")),
    };
    if has("help") {
        return Ok(Wanted::Print(help()));
    }
    if has("version") {
        return Ok(Wanted::Print(format!(
            "Firecracker v{VERSION}\n\nkvmlet {}\n",
            env!("CARGO_PKG_VERSION")
        )));
    }
    if has("snapshot-version") {
        return Ok(Wanted::Print("v1.0.0\n".into()));
    }
    for (name, why) in REFUSED {
        if has(name) {
            return Err(format!("--{name} is not supported: {why}"));
        }
    }
    let config_file = value("config-file").map(PathBuf::from);
    if has("no-api") && config_file.is_none() {
        return Err("--no-api needs --config-file, which describes the VM".into());
    }
    if has("no-api") && has("api-sock") {
        return Err("--no-api and --api-sock exclude each other".into());
    }
    let payload = number("http-api-max-payload-size")?.unwrap_or(PAYLOAD_BYTES as u64);
    let payload = usize::try_from(payload)
        .ok()
        .filter(|it| (1..=MOST_PAYLOAD_BYTES).contains(it));
    let payload_bytes = payload.ok_or(format!(
        "--http-api-max-payload-size is a number from 1 to {MOST_PAYLOAD_BYTES}"
    ))?;
    // They are for measurements, where they are no more than numbers.
    number("start-time-cpu-us")?;
    number("parent-cpu-time-us")?;
    let api_socket = || value("api-sock").unwrap_or(API_SOCKET.into()).into();
    Ok(Wanted::Serve(Box::new(Flags {
        api_socket: (!has("no-api")).then(api_socket),
        id: id(value("id"))?,
        config_file,
        log_path: value("log-path").map(Into::into),
        level: value("level").map(|text| level(&text)).transpose()?,
        show_level: has("show-level"),
        show_log_origin: has("show-log-origin"),
        metrics_path: value("metrics-path").map(Into::into),
        no_walls: has("no-seccomp"),
        payload_bytes,
        start_time_us: number("start-time-us")?,
    })))
}

/// Why what is known there cannot be here.
const REFUSED: &[(&str, &str)] = &[
    (
        "seccomp-filter",
        "each thread of a VM is held to a list of its own, which is built in",
    ),
    ("metadata", "there is no metadata service (MMDS)"),
    ("mmds-size-limit", "there is no metadata service (MMDS)"),
    ("module", "messages have levels, and no modules"),
    ("enable-pci", PCI),
    (
        "describe-snapshot",
        "a snapshot's first file is JSON, which tells what it is",
    ),
];

type Given = Vec<(&'static str, Option<String>)>;

/// The flags that were given, each once, with their values.
fn given(words: &[OsString]) -> Result<Given, String> {
    let mut given: Given = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let text = word
            .to_str()
            .ok_or_else(|| format!("{word:?} is not UTF-8"))?;
        let name = match text {
            "-h" => "help",
            "-V" => "version",
            text => text
                .strip_prefix("--")
                .ok_or_else(|| format!("unexpected argument `{text}`"))?,
        };
        let (name, glued) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let known = KNOWN.iter().find(|(known, _, _)| *known == name);
        let (name, takes, _) = known.ok_or_else(|| format!("unknown argument `--{name}`"))?;
        if given.iter().any(|(other, _)| other == name) {
            return Err(format!("--{name} was given twice"));
        }
        let value = match (takes, glued) {
            (true, Some(value)) => Some(value),
            (true, None) => {
                let next = words.next().and_then(|next| next.to_str());
                let next = next.filter(|next| !next.starts_with("--"));
                Some(
                    next.ok_or_else(|| format!("--{name} needs a value"))?
                        .to_owned(),
                )
            }
            (false, Some(_)) => return Err(format!("--{name} takes no value")),
            (false, None) => None,
        };
        given.push((name, value));
    }
    Ok(given)
}

fn id(given: Option<String>) -> Result<String, String> {
    let id = given.unwrap_or("anonymous-instance".into());
    let fits = (1..=LONGEST_ID).contains(&id.len());
    match fits
        && id
            .chars()
            .all(|char| char == '-' || char.is_ascii_alphanumeric())
    {
        true => Ok(id),
        false => Err(format!(
            "--id has 1 to {LONGEST_ID} letters, digits and hyphens"
        )),
    }
}

fn level(text: &str) -> Result<Level, String> {
    let mut name = text.to_ascii_uppercase();
    if name == "WARNING" {
        name = "WARN".into();
    }
    serde_json::from_value(name.into())
        .map_err(|_| format!("--level `{text}` is not Error, Warning, Info, Debug, Trace or Off"))
}

fn help() -> String {
    let mut text = String::from(
        "A microVM of kvmlet's that Firecracker's clients drive.\n\nUsage: kvmlet firecracker [OPTIONS]\n\nOptions:\n",
    );
    for (name, takes, about) in KNOWN {
        let flag = if *takes {
            format!("--{name} <VALUE>")
        } else {
            format!("--{name}")
        };
        text.push_str(&format!("  {flag:<36} {about}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Wanted, String> {
        let words: Vec<_> = text.split_whitespace().map(OsString::from).collect();
        read(&words)
    }

    fn flags(text: &str) -> Flags {
        match read_text(text) {
            Ok(Wanted::Serve(flags)) => *flags,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn flags_are_firecracker_s() {
        let all = flags(
            "--api-sock /a --id my-vm --config-file=c.json --boot-timer --log-path l --level warning --show-level \
             --show-log-origin --metrics-path m --no-seccomp --start-time-us 5 --start-time-cpu-us 6 \
             --parent-cpu-time-us 7 --http-api-max-payload-size 100",
        );
        assert_eq!(all.api_socket, Some("/a".into()));
        assert_eq!((&*all.id, all.level), ("my-vm", Some(Level::Warn)));
        assert_eq!((all.payload_bytes, all.start_time_us), (100, Some(5)));
        assert!(all.no_walls && all.show_level && all.show_log_origin);
        let none = flags("");
        assert_eq!(none.api_socket, Some(API_SOCKET.into()));
        assert_eq!(
            (&*none.id, none.payload_bytes),
            ("anonymous-instance", 51200)
        );
        assert_eq!(flags("--no-api --config-file c").api_socket, None);
    }

    #[test]
    fn clients_find_the_version() {
        let Ok(Wanted::Print(text)) = read_text("--version") else {
            panic!("it is printed");
        };
        assert_eq!(text.lines().next(), Some("Firecracker v1.17.0"));
        let Ok(Wanted::Print(text)) = read_text("--help") else {
            panic!("it is printed");
        };
        assert!(
            KNOWN
                .iter()
                .all(|(name, _, _)| text.contains(&format!("--{name}")))
        );
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (text, part) in [
            ("--no-such", "unknown argument `--no-such`"),
            ("stray", "unexpected argument `stray`"),
            ("--id a --id b", "--id was given twice"),
            ("--id", "--id needs a value"),
            ("--id --no-api", "--id needs a value"),
            ("--id a_b", "letters, digits and hyphens"),
            ("--no-api", "needs --config-file"),
            (
                "--no-api --api-sock a --config-file c",
                "exclude each other",
            ),
            ("--no-api=1", "takes no value"),
            ("--level loud", "`loud` is not Error"),
            ("--start-time-us soon", "a whole number"),
            ("--http-api-max-payload-size 0", "from 1 to"),
            ("--seccomp-filter f", "built in"),
            ("--metadata f", "MMDS"),
            ("--enable-pci", "not supported"),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
