//! Versions of packages, and which of two is the newer one.

use std::cmp::Ordering;

/// As dpkg compares them (deb-version(7)): epoch, upstream's version, revision.
pub fn debian(one: &str, other: &str) -> Ordering {
    let ((epoch, upstream, revision), (epoch2, upstream2, revision2)) = (parts(one), parts(other));
    let epochs = number(epoch).cmp(&number(epoch2));
    epochs
        .then_with(|| compare(upstream.as_bytes(), upstream2.as_bytes()))
        .then_with(|| compare(revision.as_bytes(), revision2.as_bytes()))
}

fn parts(version: &str) -> (&str, &str, &str) {
    let version = version.trim();
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// A number of any length: without zeros in front, a longer one is larger.
fn number(digits: &str) -> (usize, &str) {
    let plain = digits.trim_start_matches('0');
    (plain.len(), plain)
}

/// A character's place where there are no digits: `~` is before the end of a part, letters before others.
fn order(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

/// Parts without digits and parts of digits, in turns.
fn compare(mut one: &[u8], mut other: &[u8]) -> Ordering {
    let is_text = |part: &[u8]| part.first().is_some_and(|byte| !byte.is_ascii_digit());
    while !one.is_empty() || !other.is_empty() {
        while is_text(one) || is_text(other) {
            let ordering = order(one.first()).cmp(&order(other.first()));
            if ordering != Ordering::Equal {
                return ordering;
            }
            (one, other) = (rest(one), rest(other));
        }
        let (digits, after) = split(one);
        let (digits2, after2) = split(other);
        let ordering = number(digits).cmp(&number(digits2));
        if ordering != Ordering::Equal {
            return ordering;
        }
        (one, other) = (after, after2);
    }
    Ordering::Equal
}

fn rest(part: &[u8]) -> &[u8] {
    part.get(1..).unwrap_or_default()
}

/// The digits that a part begins with.
fn split(part: &[u8]) -> (&str, &[u8]) {
    let count = part.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = part.split_at(count);
    (std::str::from_utf8(digits).unwrap_or_default(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn versions_are_in_debians_order() {
        let sorted = [
            "0~~",
            "0~",
            "0",
            "0.1~rc1-1",
            "0.1-1",
            "0.1-1+b1",
            "0.1a",
            "0.1+x",
            "0.2-0.1",
            "0.10",
            "1.0~beta",
            "1.0",
            "1.0-1~deb12u1",
            "1.0-1",
            "1.0-1+deb12u1",
            "1.0-1.1",
            "1:0",
        ];
        for (at, one) in sorted.iter().enumerate() {
            for (other_at, other) in sorted.iter().enumerate() {
                assert_eq!(debian(one, other), at.cmp(&other_at), "{one} {other}");
            }
        }
        assert_eq!(debian("1.00-01", "1.0-1"), Ordering::Equal);
        assert_eq!(debian("0:1", "1"), Ordering::Equal);
        let long = |digit: &str| digit.repeat(60);
        assert_eq!(
            debian(&long("9"), &format!("1{}", long("0"))),
            Ordering::Less
        );
    }

    /// What dpkg says.
    fn dpkg(one: &str, other: &str) -> Option<Ordering> {
        let says = |word: &str| {
            let mut dpkg = Command::new("dpkg");
            let output = dpkg
                .args(["--compare-versions", one, word, other])
                .output()
                .ok()?;
            // It warns of a bad version, and compares it all the same.
            Some(output.status.success())
        };
        Some(match (says("lt")?, says("gt")?) {
            (true, _) => Ordering::Less,
            (_, true) => Ordering::Greater,
            _ => Ordering::Equal,
        })
    }

    /// Of few different parts, so that many are nearly the same.
    fn version() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec![
            "0",
            "1",
            "2",
            "10",
            "00",
            "~",
            "~~",
            "+",
            ".",
            "a",
            "b",
            "rc",
            "Z",
            "~rc1",
            "+b1",
            "deb12u1",
            "9999999999999999999",
        ]);
        let parts = prop::collection::vec(part, 0..5);
        let revision = prop::option::of(prop::sample::select(vec![
            "1", "0", "1~", "1+b2", "1.1", "2",
        ]));
        let epoch = prop::option::of(0_u8..3);
        (epoch, parts, revision).prop_map(|(epoch, parts, revision)| {
            let epoch = epoch.map(|it| format!("{it}:")).unwrap_or_default();
            let revision = revision.map(|it| format!("-{it}")).unwrap_or_default();
            format!("{epoch}1{}{revision}", parts.concat())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn dpkg_says_the_same(one in version(), other in version()) {
            if let Some(expected) = dpkg(&one, &other) {
                prop_assert_eq!(debian(&one, &other), expected, "{} {}", one, other);
            }
        }

        #[test]
        fn anything_is_compared(one: String, other: String, third: String) {
            prop_assert_eq!(debian(&one, &other), debian(&other, &one).reverse());
            prop_assert_eq!(debian(&one, &one), Ordering::Equal);
            if debian(&one, &other).is_le() && debian(&other, &third).is_le() {
                prop_assert!(debian(&one, &third).is_le());
            }
        }
    }
}
