//! What somebody may have meant who wrote a name that there is not.

use super::Setting;

/// A name is only suggested when it is about this alike (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.75;

/// Shorter names are part of too many others for that to mean anything.
const TELLING_BYTES: usize = 3;

/// What others call it: engines and other VMMs.
const ELSEWHERE: [(&str, &str); 2] = [("readonly", "ro"), ("file", "path")];

/// The known name that is most like `name`, if any is like it at all.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|candidate| (likeness(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.into())
}

/// How alike two names are. One that is a part of the other comes before one that has the same letters, and one of which a
/// letter was left out, added or mistaken before both.
fn likeness(name: &str, candidate: &str) -> f64 {
    let alike = strsim::jaro_winkler(name, candidate);
    if name.len() > TELLING_BYTES && strsim::levenshtein(name, candidate) <= 1 {
        return alike + 2.0;
    }
    let is_part = candidate.contains(name) || name.contains(candidate);
    match is_part && name.len().min(candidate.len()) >= TELLING_BYTES {
        true => alike.max(ALIKE) + 1.0,
        false => alike,
    }
}

/// The key of a configuration file that was meant by one in the object at `place` (`disks[]`; empty at the top): what
/// the flag calls so, or else the nearest that is known there.
pub(super) fn key<'a>(
    place: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let below = |setting: &Setting| {
        let key = setting.definition().key.trim_end_matches("[]");
        match place {
            "" => Some(key),
            place => key.strip_prefix(place)?.strip_prefix('.'),
        }
    };
    let name_there = as_in_text(name);
    let is_meant = |setting: &Setting| {
        let (text, is_top) = (setting.name(), setting.definition().name.is_none());
        let direction = text.strip_prefix("rx-").or(text.strip_prefix("tx-"));
        is_top == place.is_empty() && (text == name_there || direction == Some(&name_there))
    };
    let mut settings = Setting::ALL.iter().filter(|setting| is_meant(setting));
    match settings.find_map(below) {
        Some(key) if key != name => Some(key.into()),
        _ => nearest(name, known),
    }
}

/// The key of a text form that was meant: what a configuration file calls so, or else the nearest.
pub(super) fn name(setting: Setting, name: &str) -> Option<String> {
    let there = as_in_text(name);
    let is_meant = |it: &Setting| {
        let key = it.definition().key;
        let last = key.rsplit('.').next().unwrap_or(key);
        it.name() == there || last == name || key.ends_with(&format!(".{name}"))
    };
    let meant = setting.keys().find(is_meant);
    let nearest = || nearest(name, setting.keys().map(Setting::name));
    meant.map(|it| it.name().into()).or_else(nearest)
}

/// Words of text forms have hyphens, those of JSON underscores.
fn as_in_text(name: &str) -> String {
    let elsewhere = ELSEWHERE.iter().find(|(other, _)| *other == name);
    match elsewhere {
        Some((_, name)) => (*name).into(),
        None => name.replace('_', "-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_less_is_nearer_than_a_part() {
        for (setting, written, expected) in [
            (Setting::Disks, "iops-brst", "iops-burst"),
            (Setting::Disks, "iops-onc", "iops-once"),
            (Setting::Nets, "rx-packets-brst", "rx-packets-burst"),
            (Setting::Disks, "burstiness", "burst"),
            (Setting::Disks, "readonly", "ro"),
            (Setting::Balloon, "sise", "size"),
        ] {
            assert_eq!(
                name(setting, written).as_deref(),
                Some(expected),
                "{written}"
            );
        }
        assert_eq!(name(Setting::Disks, "zzz"), None);
    }
}
