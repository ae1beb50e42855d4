//! Sizes as people write them.

/// A size as docker has it: a number, which may have decimals, and b, k, m, g or t; without one it is bytes.
pub(crate) fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower
        .strip_suffix("ib")
        .or(lower.strip_suffix('b'))
        .unwrap_or(&lower);
    let units = [('k', 10), ('m', 20), ('g', 30), ('t', 40)];
    let unit = units.iter().find(|(unit, _)| lower.ends_with(*unit));
    let (number, shift) = unit.map_or((lower, 0), |(unit, shift)| {
        (lower.trim_end_matches(*unit), *shift)
    });
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') {
        return None;
    }
    let scale = 10_u128.pow(fraction.len() as u32);
    let number: u128 = format!("{whole}{fraction}").parse().ok()?;
    u64::try_from((number << shift) / scale).ok()
}
