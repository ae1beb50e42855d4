//! An image of what a guest has made of another one: a layer above those of the image, and what is to be different in its
//! configuration, in the words of a Containerfile.

use crate::changes::Archived;
use crate::unpack;
use kvmlet_image::reference::Reference;
use kvmlet_image::store::{self, Begun, Store, StoredImage};
use kvmlet_spec::{Advice, Remedy};
use serde_json::{Map, Value, json};

/// Instructions that a configuration can be changed by.
const INSTRUCTIONS: [&str; 9] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "LABEL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Why no image is made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Its configuration is not JSON of that form.
    #[error("the configuration of image {0} cannot be changed")]
    Config(String),
    /// It is no instruction that changes a configuration.
    #[error("`{}` is not an instruction that changes an image", .0.escape_debug())]
    Instruction(String),
    /// It does not say what to change.
    #[error("`{}` says nothing that can be done", .0.escape_debug())]
    Words(String),
    /// Its layer is not taken apart.
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        match self {
            Self::Instruction(_) => Some(format!("these are: {}", INSTRUCTIONS.join(", ")).into()),
            Self::Store(error) => error.help().map(Into::into),
            _ => None,
        }
    }
}

/// What is said of an image that is made.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Who has made it.
    pub author: Option<String>,
    /// Why.
    pub message: Option<String>,
    /// When, as RFC 3339 has it.
    pub created: String,
    /// Instructions.
    pub changes: Vec<String>,
}

/// Adds an image whose last layer is this archive.
///
/// # Errors
/// When an instruction is none, or the store does not take the image or its layer.
pub fn commit(
    store: &Store,
    base: &StoredImage,
    archived: &Archived,
    about: &About,
    names: &[Reference],
) -> Result<StoredImage, Error> {
    // Before what takes long.
    let json = config(base, archived, about)?;
    let mut layers = Vec::new();
    for diff_id in &base.image.config.layers {
        let layer = store.layer(diff_id)?;
        layers.push(layer.ok_or(store::Error::Incomplete {
            image: base.image.id,
            layer: *diff_id,
            why: "missing",
        })?);
    }
    let digest = archived.digest;
    layers.push(match store.begin_layer(&digest)? {
        Begun::There(layer) => layer,
        Begun::Yours(addition) => addition.add_by(|file, place| {
            let unpacked = unpack::unpack(&digest, &archived.file, file, place.path());
            Ok::<_, Error>(unpacked?)
        })?,
    });
    Ok(store.add_image(json.to_string().as_bytes(), &layers, names)?)
}

/// The configuration of the image, with a layer more.
fn config(base: &StoredImage, archived: &Archived, about: &About) -> Result<Value, Error> {
    let wrong = || Error::Config(base.image.id.short());
    let mut all: Value = serde_json::from_slice(&base.image.json).map_err(|_| wrong())?;
    let whole = all.as_object_mut().ok_or_else(wrong)?;
    let layers = whole
        .get_mut("rootfs")
        .and_then(|it| it.get_mut("diff_ids"));
    let layers = layers.and_then(Value::as_array_mut).ok_or_else(wrong)?;
    layers.push(json!(archived.digest));
    whole.insert("created".into(), about.created.clone().into());
    if let Some(author) = &about.author {
        whole.insert("author".into(), author.clone().into());
    }
    let mut step = Map::new();
    step.insert("created".into(), about.created.clone().into());
    step.insert("created_by".into(), "kvmlet commit".into());
    let told = [("author", &about.author), ("comment", &about.message)];
    for (name, value) in told {
        if let Some(value) = value {
            step.insert(name.into(), value.clone().into());
        }
    }
    let history = whole.entry("history").or_insert_with(|| json!([]));
    if !history.is_array() {
        *history = json!([]);
    }
    history
        .as_array_mut()
        .ok_or_else(wrong)?
        .push(Value::Object(step));
    let process = whole.entry("config").or_insert_with(|| json!({}));
    if process.is_null() {
        *process = json!({});
    }
    let process = process.as_object_mut().ok_or_else(wrong)?;
    let mut sets_command = false;
    for change in &about.changes {
        sets_command |= apply(process, change, sets_command)?;
    }
    Ok(all)
}

/// Does what an instruction says; tells whether that was a command. A new entry point takes no arguments of the one before,
/// as in a Containerfile, unless they were set here.
fn apply(config: &mut Map<String, Value>, text: &str, has_command: bool) -> Result<bool, Error> {
    let nothing = || Error::Words(text.into());
    let (verb, rest) = text
        .trim()
        .split_once(char::is_whitespace)
        .unwrap_or((text.trim(), ""));
    let (verb, rest) = (verb.to_ascii_uppercase(), rest.trim());
    if !INSTRUCTIONS.contains(&&*verb) {
        return Err(Error::Instruction(verb));
    }
    if rest.is_empty() {
        return Err(nothing());
    }
    match &*verb {
        "CMD" => {
            config.insert("Cmd".into(), command(rest));
            return Ok(true);
        }
        "ENTRYPOINT" => {
            config.insert("Entrypoint".into(), command(rest));
            if !has_command {
                config.remove("Cmd");
            }
        }
        "ENV" => {
            let pairs = pairs(rest).ok_or_else(nothing)?;
            let variables = config.entry("Env").or_insert_with(|| json!([]));
            if variables.is_null() {
                *variables = json!([]);
            }
            let variables = variables.as_array_mut().ok_or_else(nothing)?;
            for (name, value) in pairs {
                let start = format!("{name}=");
                variables.retain(|it| !it.as_str().is_some_and(|it| it.starts_with(&start)));
                variables.push(format!("{start}{value}").into());
            }
        }
        "LABEL" => {
            for (name, value) in pairs(rest).ok_or_else(nothing)? {
                set(config, "Labels", name, value.into());
            }
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let whole = match port.contains('/') {
                    true => port.into(),
                    false => format!("{port}/tcp"),
                };
                set(config, "ExposedPorts", whole, json!({}));
            }
        }
        "VOLUME" => {
            let many: Option<Vec<String>> = serde_json::from_str(rest).ok();
            let words = || rest.split_whitespace().map(Into::into).collect();
            for path in many.unwrap_or_else(words) {
                set(config, "Volumes", path, json!({}));
            }
        }
        "WORKDIR" => {
            let before = config.get("WorkingDir").and_then(Value::as_str);
            let whole = match rest.starts_with('/') {
                true => rest.to_owned(),
                false => format!(
                    "{}/{rest}",
                    before.unwrap_or_default().trim_end_matches('/')
                ),
            };
            config.insert("WorkingDir".into(), whole.into());
        }
        "USER" => drop(config.insert("User".into(), rest.into())),
        _ => drop(config.insert("StopSignal".into(), rest.into())),
    }
    Ok(false)
}

/// A command: its words as JSON, or a line for the shell.
fn command(text: &str) -> Value {
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(words) => words.into(),
        Err(_) => json!(["/bin/sh", "-c", text]),
    }
}

/// Sets something in a table of the configuration.
fn set(config: &mut Map<String, Value>, table: &str, name: String, value: Value) {
    let entry = config.entry(table).or_insert_with(|| json!({}));
    if !entry.is_object() {
        *entry = json!({});
    }
    if let Some(table) = entry.as_object_mut() {
        table.insert(name, value);
    }
}

/// `NAME=VALUE` as often as they come, with quotes around what has blanks in it; or one `NAME VALUE`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text)?;
    if !words.first()?.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.into(), value.trim().into())]);
    }
    let split = |word: String| {
        let (name, value) = word.split_once('=')?;
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    };
    words.into_iter().map(split).collect()
}

/// Words as a shell would have them, without variables.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().push(chars.next()?),
            (_, Some(open)) if char == open => quote = None,
            (_, Some(_)) => word.get_or_insert_default().push(char),
            ('"' | '\'', None) => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            _ if char.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(before: Value, changes: &[&str]) -> Value {
        let Value::Object(mut config) = before else {
            panic!("{before}");
        };
        let mut sets_command = false;
        for change in changes {
            sets_command |= apply(&mut config, change, sets_command).unwrap();
        }
        Value::Object(config)
    }

    #[test]
    fn a_configuration_is_changed_by_a_containerfiles_words() {
        let before =
            json!({"Cmd": ["old"], "Env": ["A=1", "AB=2"], "WorkingDir": "/srv", "Labels": null});
        let changes = [
            "ENTRYPOINT [\"/bin/x\", \"a b\"]",
            "env A=\"x y\" C='$z' D=q\\ r",
            "ENV E the rest",
            "LABEL a=b",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/a b\"]",
            "VOLUME /c /d",
            "WORKDIR sub",
            "USER 1:2",
            "STOPSIGNAL SIGQUIT",
        ];
        let after = json!({
            "Entrypoint": ["/bin/x", "a b"], "Env": ["AB=2", "A=x y", "C=$z", "D=q r", "E=the rest"],
            "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Volumes": {"/a b": {}, "/c": {}, "/d": {}}, "WorkingDir": "/srv/sub", "User": "1:2",
            "StopSignal": "SIGQUIT",
        });
        assert_eq!(changed(before, &changes), after);
        let both = changed(
            json!({"Cmd": ["old"]}),
            &["CMD echo $HOME", "ENTRYPOINT [\"/e\"]"],
        );
        assert_eq!(both["Cmd"], json!(["/bin/sh", "-c", "echo $HOME"]));
    }

    #[test]
    fn what_changes_nothing_is_refused() {
        for wrong in [
            "",
            "RUN true",
            "ENV",
            "ENV A",
            "LABEL ='x'",
            "ENV A=\"x",
            "CMD",
        ] {
            assert!(apply(&mut Map::new(), wrong, false).is_err(), "{wrong}");
        }
    }
}
