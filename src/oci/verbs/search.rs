//! `kvmlet search`.

use super::{options, reference};
use crate::confined::confine;
use crate::mirrors::Registries;
use crate::registry::{Hit, Options, Registry};
use kvmlet_command::format::Format;
use kvmlet_command::oci::Search;
use kvmlet_command::{Failed, Outcome, print};
use kvmlet_image::reference::DEFAULT_REGISTRY;
use serde_json::{Value, json};
use std::cmp::Reverse;

const TABLE: &str = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
/// How much of a description a table has, as docker's.
const WIDTH: usize = 45;

pub(super) fn run(flags: &Search) -> Outcome {
    let format = Format::parse(flags.format.as_deref(), TABLE)?;
    let filters = flags.filter.iter().map(|text| Filter::parse(text));
    let filters: Vec<Filter> = filters.collect::<Result<_, _>>()?;
    let (registry, text) = asked(&flags.text)?;
    // What is said of a registry as a whole: its settings are those of any name in it.
    let any = reference(&format!("{registry}/any"))?;
    let mut places = Registries::of_user()?.places(&any)?;
    // Mirrors have some of its images, and the last one is its own.
    let own = places.split_off(places.len().saturating_sub(1));
    let talk = options(&flags.talk, &own);
    let (host, is_insecure) = own.first().map_or((registry, false), |place| {
        (&*place.registry, place.is_insecure)
    });
    confine(None)?;
    let options = Options {
        is_insecure,
        ..talk
    };
    let found = Registry::connect(host, &options)?;
    let mut hits = found.search(text, flags.limit.into())?;
    hits.retain(|hit| filters.iter().all(|filter| filter.passes(hit)));
    hits.sort_by_key(|hit| Reverse(hit.stars));
    let rows: Vec<Value> = hits
        .iter()
        .map(|hit| row(hit, registry, &format, flags))
        .collect();
    print(format.render(&rows, heading)?)?;
    Ok(0)
}

/// The registry and what is searched for in it. What stands before the first slash is a registry if it looks like a host, as in
/// the name of an image, but for case, which a search does not mind.
fn asked(text: &str) -> Result<(&str, &str), Failed> {
    if text.contains("://") {
        return Err(Failed::new("a registry is named without `https://`"));
    }
    let (registry, text) = match text.split_once('/') {
        Some(("docker.io" | "index.docker.io", rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (DEFAULT_REGISTRY, text),
    };
    let text = match registry {
        DEFAULT_REGISTRY => text.strip_prefix("library/").unwrap_or(text),
        _ => text,
    };
    match (registry, text) {
        (DEFAULT_REGISTRY, "") => Err(Failed::new("there is nothing to search for")
            .help("say a part of a name: `kvmlet search nginx`")),
        found => Ok(found),
    }
}

fn heading(field: &str) -> String {
    match field {
        "StarCount" => "STARS".into(),
        "IsOfficial" => "OFFICIAL".into(),
        "IsAutomated" => "AUTOMATED".into(),
        other => other.to_uppercase(),
    }
}

fn row(hit: &Hit, registry: &str, format: &Format, flags: &Search) -> Value {
    let name = match registry {
        DEFAULT_REGISTRY => hit.name.clone(),
        registry => format!("{registry}/{}", hit.name),
    };
    let mark = match (format, hit.is_official) {
        (Format::Json, is_official) => {
            if is_official {
                "true"
            } else {
                "false"
            }
        }
        (_, true) => "[OK]",
        (_, false) => "",
    };
    json!({
        "Name": name,
        "Description": match flags.no_trunc {
            true => hit.description.clone(),
            false => shortened(&hit.description),
        },
        "StarCount": hit.stars.to_string(),
        "IsOfficial": mark,
        // Docker Hub has none of these any more.
        "IsAutomated": if matches!(format, Format::Json) { "false" } else { "" },
    })
}

fn shortened(text: &str) -> String {
    match text.chars().count() > WIDTH {
        true => text.chars().take(WIDTH - 1).chain(['…']).collect(),
        false => text.into(),
    }
}

/// Which images are shown.
enum Filter {
    Official(bool),
    Stars(u64),
}

impl Filter {
    fn parse(text: &str) -> Result<Self, Failed> {
        let wrong = || {
            Failed::new(format!("`{}` is not a filter", text.escape_debug()))
                .help("is-official=true|false, stars=NUMBER")
        };
        match text.split_once('=').ok_or_else(wrong)? {
            ("is-official", "true" | "1") => Ok(Self::Official(true)),
            ("is-official", "false" | "0") => Ok(Self::Official(false)),
            ("stars", number) => number.parse().map(Self::Stars).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }

    fn passes(&self, hit: &Hit) -> bool {
        match self {
            Self::Official(is) => hit.is_official == *is,
            Self::Stars(least) => hit.stars >= *least,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_told_from_what_is_searched_for() {
        for (text, expected) in [
            ("nginx", ("docker.io", "nginx")),
            ("library/nginx", ("docker.io", "nginx")),
            ("docker.io/library/nginx", ("docker.io", "nginx")),
            ("team/App", ("docker.io", "team/App")),
            ("quay.io/team/app", ("quay.io", "team/app")),
            ("localhost/app", ("localhost", "app")),
            ("localhost:5000/", ("localhost:5000", "")),
        ] {
            assert_eq!(asked(text).unwrap(), expected, "{text}");
        }
        for text in ["", "docker.io/", "library/", "https://quay.io/app"] {
            assert!(asked(text).is_err(), "{text}");
        }
    }

    #[test]
    fn descriptions_are_as_long_as_dockers() {
        let long = "x".repeat(46);
        assert_eq!(shortened(&long), format!("{}…", "x".repeat(44)));
        assert_eq!(shortened(&long[1..]), &long[1..]);
    }
}
