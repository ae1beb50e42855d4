//! Signals by the names and numbers that users write.

use kvmlet_sys::signals::{NAMES, REAL_TIME};

/// The number of a signal, as docker takes it: a number, or a name with or without `SIG`.
pub(super) fn signal_number(text: &str) -> Result<u8, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = || {
        let place = NAMES.iter().position(|known| *known == name)?;
        u8::try_from(place + 1).ok()
    };
    let [first, last] = REAL_TIME;
    let real_time = || match name {
        "RTMIN" => Some(first),
        "RTMAX" => Some(last),
        _ => {
            let up = name.strip_prefix("RTMIN+").map(|text| text.parse::<u8>());
            let down = name.strip_prefix("RTMAX-").map(|text| text.parse::<u8>());
            match (up, down) {
                (Some(Ok(up)), _) => first.checked_add(up),
                (_, Some(Ok(down))) => last.checked_sub(down).filter(|it| *it >= first),
                _ => None,
            }
        }
    };
    let number = text.parse().ok().or_else(by_name).or_else(real_time);
    number
        .filter(|number| (1..=last).contains(number))
        .ok_or_else(|| {
            format!("`{text}` is not a signal: a name such as TERM, or a number from 1 to {last}")
        })
}
