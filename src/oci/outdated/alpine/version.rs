//! Versions as apk orders them (apk-package(5)): `1.2.3b_rc4-r5`.

use std::cmp::Ordering;

/// What stands behind `_`: those of what comes before a version, and those of what comes after it.
const BEFORE: [&str; 4] = ["alpha", "beta", "pre", "rc"];
const AFTER: [&str; 5] = ["cvs", "svn", "git", "hg", "p"];

/// A version in its parts.
#[derive(Debug, PartialEq)]
struct Version<'a> {
    numbers: Vec<&'a str>,
    letter: Option<u8>,
    /// Each with its place around 0, and its number.
    suffixes: Vec<(i8, &'a str)>,
    revision: Option<&'a str>,
}

/// Compares two of them; what is none is neither newer nor older than anything.
pub fn compare(one: &str, other: &str) -> Ordering {
    match (parse(one), parse(other)) {
        (Some(one), Some(other)) => order(&one, &other),
        _ => Ordering::Equal,
    }
}

fn parse(text: &str) -> Option<Version<'_>> {
    let (text, revision) = match text.rsplit_once("-r") {
        Some((text, revision)) => (text, Some(only_digits(revision)?)),
        None => (text, None),
    };
    // Which state of its sources that was is in no order.
    let text = text.split('~').next()?;
    let mut parts = text.split('_');
    let mut first = parts.next()?;
    let letter = first.bytes().last().filter(u8::is_ascii_lowercase);
    if letter.is_some() {
        first = &first[..first.len() - 1];
    }
    let numbers: Option<Vec<_>> = first.split('.').map(only_digits).collect();
    let suffix = |part| {
        let name = str::trim_end_matches(part, |c: char| c.is_ascii_digit());
        let before = BEFORE.iter().position(|it| *it == name);
        let place = match before {
            Some(at) => at as i8 - BEFORE.len() as i8,
            None => AFTER.iter().position(|it| *it == name)? as i8 + 1,
        };
        Some((place, &part[name.len()..]))
    };
    Some(Version {
        numbers: numbers?,
        letter,
        suffixes: parts.map(suffix).collect::<Option<_>>()?,
        revision,
    })
}

fn only_digits(text: &str) -> Option<&str> {
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then_some(text)
}

fn order(one: &Version<'_>, other: &Version<'_>) -> Ordering {
    for (at, (a, b)) in one.numbers.iter().zip(&other.numbers).enumerate() {
        // Behind the first point a number with a zero in front is a fraction.
        let are_fractions = at > 0 && (a.starts_with('0') || b.starts_with('0'));
        let ordering = match are_fractions {
            true => a.cmp(b),
            false => number(a).cmp(&number(b)),
        };
        if ordering.is_ne() {
            return ordering;
        }
    }
    let longer = one.numbers.len().cmp(&other.numbers.len());
    longer
        .then_with(|| one.letter.cmp(&other.letter))
        .then_with(|| suffixes(&one.suffixes, &other.suffixes))
        .then_with(|| one.revision.map(number).cmp(&other.revision.map(number)))
}

/// A version without a suffix lies between those with one.
fn suffixes(one: &[(i8, &str)], other: &[(i8, &str)]) -> Ordering {
    let at = |all: &[(i8, &str)], at: usize| -> (i8, (usize, String)) {
        let (place, digits) = all.get(at).copied().unwrap_or_default();
        let (length, digits) = number(digits);
        (place, (length, digits.to_owned()))
    };
    let most = one.len().max(other.len());
    let mut orderings = (0..most).map(|it| at(one, it).cmp(&at(other, it)));
    orderings.find(|it| it.is_ne()).unwrap_or(Ordering::Equal)
}

/// A number of any length: without zeros in front, a longer one is larger.
fn number(digits: &str) -> (usize, &str) {
    let plain = digits.trim_start_matches('0');
    (plain.len(), plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_are_in_apks_order() {
        let sorted = [
            "0.9.9-r9",
            "1.01",
            "1.1_alpha",
            "1.1_alpha2",
            "1.1_beta1",
            "1.1_pre3",
            "1.1_rc1",
            "1.1_rc1_p1",
            "1.1_rc10",
            "1.1",
            "1.1-r0",
            "1.1-r2",
            "1.1-r10",
            "1.1_git20240101-r0",
            "1.1_p1",
            "1.1_p1-r1",
            "1.1a",
            "1.1b_rc1",
            "1.1b",
            "1.1.0-r0",
            "1.1.1",
            "1.2",
            "1.10",
            "2",
            "20240101",
        ];
        for (at, one) in sorted.iter().enumerate() {
            for (other_at, other) in sorted.iter().enumerate() {
                assert_eq!(compare(one, other), at.cmp(&other_at), "{one} {other}");
            }
        }
        assert_eq!(compare("1.2~abc-r1", "1.2-r1"), Ordering::Equal);
        for wrong in ["", "a", "1..2", "1_x", "1-rx", "1-", "-r1", "1.2ab"] {
            assert_eq!(parse(wrong), None, "{wrong}");
            assert_eq!(compare(wrong, "9"), Ordering::Equal);
        }
    }

    proptest! {
        #[test]
        fn anything_is_compared(one in "[0-9a-z._~-]{0,12}", other in ".{0,8}") {
            prop_assert_eq!(compare(&one, &other), compare(&other, &one).reverse());
            prop_assert_eq!(compare(&one, &one), Ordering::Equal);
        }
    }
}
