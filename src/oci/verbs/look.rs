//! `kvmlet image inspect` and `history`.

use super::list::{ago, created};
use super::{image, store};
use kvmlet_command::format::{Format, Template};
use kvmlet_command::oci::{History, Inspect};
use kvmlet_command::plain::{json as json_line, pretty_json};
use kvmlet_command::shown::decimal;
use kvmlet_command::{Failed, Outcome, print};
use kvmlet_image::store::Image;
use kvmlet_manager::Moment;
use serde_json::{Value, json};

const TABLE: &str = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
/// Characters of a command that the list shows.
const COMMAND: usize = 45;

pub(super) fn inspect(flags: &Inspect) -> Outcome {
    let template = match flags.format.as_deref() {
        None => None,
        Some("json") => Some(None),
        Some(text) => Some(Some(Template::parse(text)?)),
    };
    let store = store()?;
    let mut code = 0;
    let mut found = Vec::new();
    for text in &flags.images {
        match image(&store, text) {
            Ok(image) => found.push(told(&image.image)?),
            Err(failed) => {
                failed.print();
                code = super::NOT_DONE;
            }
        }
    }
    let text = match template {
        None => pretty_json(&found)? + "\n",
        Some(None) => {
            let lines = found.iter().map(|one| Ok(json_line(one)? + "\n"));
            lines.collect::<Result<String, Failed>>()?
        }
        Some(Some(template)) => template.lines(&found)?,
    };
    print(text)?;
    Ok(code)
}

fn config(image: &Image) -> Result<Value, Failed> {
    serde_json::from_slice(&image.json).map_err(Failed::new)
}

/// Docker's fields.
fn told(image: &Image) -> Result<Value, Failed> {
    let config = config(image)?;
    let (digests, tags): (Vec<_>, Vec<_>) =
        image.names.iter().partition(|name| name.digest().is_some());
    let text = |names: Vec<&kvmlet_image::reference::Reference>| -> Vec<String> {
        names.into_iter().map(ToString::to_string).collect()
    };
    let layers: Vec<String> = image
        .config
        .layers
        .iter()
        .map(ToString::to_string)
        .collect();
    let of = |name: &str| config.get(name).cloned().unwrap_or_default();
    let string = |name: &str| of(name).as_str().unwrap_or_default().to_owned();
    Ok(json!({
        "Id": image.id.to_string(),
        "RepoTags": text(tags),
        "RepoDigests": text(digests),
        "Created": string("created"),
        "Author": string("author"),
        "Architecture": string("architecture"),
        "Variant": string("variant"),
        "Os": string("os"),
        "Size": image.size(),
        "Config": of("config"),
        "RootFS": { "Type": "layers", "Layers": layers },
        "Disk": image.extents.iter().map(|extent| json!({
            "Path": extent.path,
            "Offset": extent.offset,
            "Length": extent.length,
        })).collect::<Vec<_>>(),
    }))
}

pub(super) fn history(flags: &History) -> Outcome {
    let format = Format::parse(flags.format.as_deref(), TABLE)?;
    let store = store()?;
    let image = image(&store, &flags.image)?.image;
    let config = config(&image)?;
    let steps = config
        .get("history")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    // The disk has the merged metadata first, then what each layer brings, if that is anything.
    let mut layers = image.config.layers.len();
    let mut rows = Vec::new();
    for (number, step) in steps.iter().rev().enumerate() {
        let text = |name: &str| step.get(name).and_then(Value::as_str).unwrap_or_default();
        let is_empty = step
            .get("empty_layer")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let layer = match is_empty {
            true => None,
            false => {
                layers = layers.saturating_sub(1);
                image.config.layers.get(layers)
            }
        };
        let bytes = layer.map(|layer| store.layer(layer)).transpose();
        let bytes = bytes
            .map_err(super::failed)?
            .flatten()
            .map_or(0, |layer| layer.data_length);
        let moment: Option<Moment> = text("created").parse().ok();
        rows.push(json!({
            "ID": if number == 0 { image.id.short() } else { "<missing>".into() },
            "CreatedSince": ago(moment),
            "CreatedAt": moment.map_or("N/A".into(), |moment| moment.to_string()),
            "CreatedBy": cut(text("created_by"), flags.no_trunc),
            "Size": decimal(bytes),
            "Comment": text("comment"),
        }));
    }
    if rows.is_empty() {
        rows.push(json!({
            "ID": image.id.short(),
            "CreatedSince": ago(created(&image)),
            "CreatedAt": created(&image).map_or("N/A".into(), |moment| moment.to_string()),
            "CreatedBy": "",
            "Size": decimal(image.size()),
            "Comment": "",
        }));
    }
    print(format.render(&rows, heading)?)?;
    Ok(0)
}

fn heading(field: &str) -> String {
    match field {
        "ID" => "IMAGE".into(),
        "CreatedSince" => "CREATED".into(),
        "CreatedAt" => "CREATED AT".into(),
        "CreatedBy" => "CREATED BY".into(),
        other => other.to_uppercase(),
    }
}

/// In one line.
fn cut(text: &str, whole: bool) -> String {
    let plain: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match whole || plain.chars().count() <= COMMAND {
        true => plain,
        false => plain
            .chars()
            .take(COMMAND - 1)
            .chain(['\u{2026}'])
            .collect(),
    }
}
