//! Firecracker's command line.

use super::model::Level;
use kvmlet_command::firecracker::FIRECRACKER_LINE;
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
    /// Put devices on a PCI bus.
    pub pci: bool,
    pub payload_bytes: usize,
    /// A file of what the guest is told of itself.
    pub metadata: Option<PathBuf>,
    /// How much that may be.
    pub metadata_bytes: usize,
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

/// Reads a command line.
pub fn read(words: &[OsString]) -> Result<Wanted, String> {
    let given = FIRECRACKER_LINE.read(words)?;
    let (has, value) = (|name: &str| given.has(name), |name: &str| given.value(name));
    let number = |name: &str| given.number::<u64>(name);
    if has("help") {
        return Ok(Wanted::Print(FIRECRACKER_LINE.help()));
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
    let metadata_bytes = match number("mmds-size-limit")? {
        None => payload_bytes,
        Some(bytes) => usize::try_from(bytes)
            .ok()
            .filter(|it| (1..=MOST_PAYLOAD_BYTES).contains(it))
            .ok_or(format!(
                "--mmds-size-limit is a number from 1 to {MOST_PAYLOAD_BYTES}"
            ))?,
    };
    // They are for measurements, where they are no more than numbers.
    number("start-time-cpu-us")?;
    number("parent-cpu-time-us")?;
    let api_socket = || value("api-sock").unwrap_or(API_SOCKET.into()).into();
    Ok(Wanted::Serve(Box::new(Flags {
        api_socket: (!has("no-api")).then(api_socket),
        id: id(value("id").unwrap_or("anonymous-instance".into()))?,
        config_file,
        log_path: value("log-path").map(Into::into),
        level: value("level").map(|text| level(&text)).transpose()?,
        show_level: has("show-level"),
        show_log_origin: has("show-log-origin"),
        metrics_path: value("metrics-path").map(Into::into),
        no_walls: has("no-seccomp"),
        pci: has("enable-pci"),
        payload_bytes,
        metadata: value("metadata").map(Into::into),
        metadata_bytes,
        start_time_us: number("start-time-us")?,
    })))
}

/// Would these words behind an id be read?
pub fn check(words: &[OsString]) -> Result<(), String> {
    if FIRECRACKER_LINE.read(words)?.has("id") {
        return Err("--id is given by the jailer".into());
    }
    read(words).map(drop)
}

/// Why what is known there cannot be here.
const REFUSED: &[(&str, &str)] = &[
    (
        "seccomp-filter",
        "each thread of a VM is held to a list of its own, which is built in",
    ),
    ("module", "messages have levels, and no modules"),
    (
        "describe-snapshot",
        "a snapshot's first file is JSON, which tells what it is",
    ),
];

/// An id of a VM, as it is known to clients.
pub fn id(id: String) -> Result<String, String> {
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
             --parent-cpu-time-us 7 --http-api-max-payload-size 100 --metadata d.json --mmds-size-limit 200 --enable-pci",
        );
        assert_eq!(all.metadata, Some("d.json".into()));
        assert_eq!(all.metadata_bytes, 200);
        assert_eq!(all.api_socket, Some("/a".into()));
        assert_eq!((&*all.id, all.level), ("my-vm", Some(Level::Warn)));
        assert_eq!((all.payload_bytes, all.start_time_us), (100, Some(5)));
        assert!(all.pci && !flags("").pci);
        assert!(all.no_walls && all.show_level && all.show_log_origin);
        let none = flags("");
        assert_eq!(none.api_socket, Some(API_SOCKET.into()));
        assert_eq!(
            (&*none.id, none.payload_bytes),
            ("anonymous-instance", 51200)
        );
        assert_eq!((none.metadata, none.metadata_bytes), (None, 51200));
        let longer = flags("--http-api-max-payload-size 60000");
        assert_eq!(longer.metadata_bytes, 60000);
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
        assert_eq!(text, FIRECRACKER_LINE.help());
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
            ("--mmds-size-limit 0", "from 1 to"),
            ("--mmds-size-limit 1048577", "from 1 to"),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
