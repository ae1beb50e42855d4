//! `kvmlet images`.

use super::{failed, store};
use kvmlet_command::format::Format;
use kvmlet_command::oci::List;
use kvmlet_command::shown::{decimal, span};
use kvmlet_command::{Failed, Outcome, print};
use kvmlet_image::reference::Reference;
use kvmlet_image::store::Image;
use kvmlet_manager::Moment;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const TABLE: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const WITH_DIGESTS: &str =
    "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
/// What stands where there is no name.
const NONE: &str = "<none>";

pub(super) fn run(flags: &List) -> Outcome {
    let table = if flags.digests { WITH_DIGESTS } else { TABLE };
    let format = match (flags.quiet, &flags.format) {
        (true, None) => Format::parse(Some("{{.ID}}"), table)?,
        (_, format) => Format::parse(format.as_deref(), table)?,
    };
    let filters = flags.filter.iter().map(|text| Filter::parse(text));
    let mut filters: Vec<Filter> = filters.collect::<Result<_, _>>()?;
    if let Some(name) = &flags.name {
        filters.push(Filter::Reference(name.clone()));
    }
    let mut images = store()?.images().map_err(failed)?;
    let created = |image: &Image| created(image).map(|moment| Moment::now().since(moment));
    images.sort_by_key(|image| (created(image), image.id));
    let mut rows = Vec::new();
    for image in &images {
        let shown = names(image)
            .into_iter()
            .filter(|name| filters.iter().all(|filter| filter.passes(image, name)));
        rows.extend(shown.map(|name| row(image, &name, flags.no_trunc)));
    }
    if flags.quiet && flags.format.is_none() {
        // An image of several names is one.
        let mut seen = std::collections::HashSet::new();
        rows.retain(|row| seen.insert(row["ID"].to_string()));
    }
    print(format.render(&rows, heading)?)?;
    Ok(0)
}

fn heading(field: &str) -> String {
    match field {
        "ID" => "IMAGE ID".into(),
        "CreatedSince" => "CREATED".into(),
        "CreatedAt" => "CREATED AT".into(),
        other => other.to_uppercase(),
    }
}

/// A line of the list: a repository with a tag, or what takes its place.
struct Shown {
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// The tags of an image, with the digest of each repository that is known; or these alone; or nothing.
fn names(image: &Image) -> Vec<Shown> {
    let mut digests: BTreeMap<String, String> = BTreeMap::new();
    for name in &image.names {
        if let Some(digest) = name.digest() {
            digests.insert(name.familiar_name(), digest.to_string());
        }
    }
    let tagged = image.names.iter().filter(|name| name.digest().is_none());
    let mut all: Vec<Shown> = tagged
        .map(|name| Shown {
            repository: name.familiar_name(),
            tag: name.tag().map(Into::into),
            digest: digests.get(&name.familiar_name()).cloned(),
        })
        .collect();
    for (repository, digest) in digests {
        if !all.iter().any(|shown| shown.repository == repository) {
            all.push(Shown {
                repository,
                tag: None,
                digest: Some(digest),
            });
        }
    }
    if all.is_empty() {
        all.push(Shown {
            repository: NONE.into(),
            tag: None,
            digest: None,
        });
    }
    all
}

/// When an image was made, if it says so.
pub(super) fn created(image: &Image) -> Option<Moment> {
    let config: Value = serde_json::from_slice(&image.json).ok()?;
    config.get("created")?.as_str()?.parse().ok()
}

/// `3 weeks ago`.
pub(super) fn ago(moment: Option<Moment>) -> String {
    moment.map_or("N/A".into(), |moment| {
        format!("{} ago", span(Moment::now().since(moment)))
    })
}

fn row(image: &Image, name: &Shown, whole: bool) -> Value {
    let id = match whole {
        true => image.id.to_string(),
        false => image.id.short(),
    };
    let created = created(image);
    json!({
        "Repository": name.repository,
        "Tag": name.tag.as_deref().unwrap_or(NONE),
        "Digest": name.digest.as_deref().unwrap_or(NONE),
        "ID": id,
        "CreatedAt": created.map_or("N/A".into(), |moment| moment.to_string()),
        "CreatedSince": ago(created),
        "Size": decimal(image.size()),
    })
}

/// Which images are shown.
enum Filter {
    Dangling(bool),
    Reference(String),
    Label(String, Option<String>),
}

impl Filter {
    fn parse(text: &str) -> Result<Self, Failed> {
        let wrong = || {
            Failed::new(format!("`{}` is not a filter", text.escape_debug()))
                .help("dangling=true|false, reference=PATTERN, label=KEY[=VALUE]")
        };
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        Ok(match (key, value) {
            ("dangling", "true" | "1") => Self::Dangling(true),
            ("dangling", "false" | "0") => Self::Dangling(false),
            ("reference", pattern) => Self::Reference(pattern.into()),
            ("label", label) => match label.split_once('=') {
                Some((key, value)) => Self::Label(key.into(), Some(value.into())),
                None => Self::Label(label.into(), None),
            },
            _ => return Err(wrong()),
        })
    }

    fn passes(&self, image: &Image, name: &Shown) -> bool {
        match self {
            Self::Dangling(dangling) => {
                let tagged = image.names.iter().any(|name| name.digest().is_none());
                *dangling != tagged
            }
            Self::Label(key, value) => {
                let label = image.config.labels.get(key);
                label.is_some_and(|label| value.as_ref().is_none_or(|value| value == label))
            }
            Self::Reference(pattern) => is_called(name, pattern),
        }
    }
}

/// Whether a pattern is for a name: that of a repository, with any tag unless it has one.
fn is_called(name: &Shown, pattern: &str) -> bool {
    let plain = Reference::parse(pattern).ok();
    let pattern_has_tag = pattern
        .rsplit('/')
        .next()
        .is_some_and(|last| last.contains(':'));
    if let Some(reference) = plain {
        let tag = reference.tag().filter(|_| pattern_has_tag);
        let same_tag = tag.is_none_or(|tag| name.tag.as_deref() == Some(tag));
        return reference.familiar_name() == name.repository && same_tag;
    }
    let whole = match (&name.tag, pattern_has_tag) {
        (Some(tag), true) => format!("{}:{tag}", name.repository),
        _ => name.repository.clone(),
    };
    matches(pattern.as_bytes(), whole.as_bytes())
}

/// As a shell's: `*` and `?` stand for anything but a slash.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(b'?') if text[t] != b'/' => (p, t) = (p + 1, t + 1),
            Some(byte) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((after, from)) if text[from] != b'/' => {
                    star = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_a_shell() {
        let name = |repository: &str, tag: &str| Shown {
            repository: repository.into(),
            tag: Some(tag.into()),
            digest: None,
        };
        for (pattern, repository, expected) in [
            ("nginx", "nginx", true),
            ("nginx:1", "nginx", true),
            ("nginx:2", "nginx", false),
            ("docker.io/library/nginx", "nginx", true),
            ("ngin*", "nginx", true),
            ("ngin?", "nginx", true),
            ("*", "nginx", true),
            ("*", "quay.io/team/app", false),
            ("*/team/*", "quay.io/team/app", true),
            ("ng*:1*", "nginx", true),
            ("ng*:2*", "nginx", false),
            ("*x*y*", "nginx", false),
            ("*n*x", "nginx", true),
        ] {
            assert_eq!(
                is_called(&name(repository, "1"), pattern),
                expected,
                "{pattern} {repository}"
            );
        }
    }
}
