//! A logarithmic axis.

/// From values to places along an axis.
pub(super) struct LogScale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl LogScale {
    /// An axis from pixel `from` to `to` that holds all values and ends at 1, 2 or 5 times a power of ten. `None`
    /// if no value is positive.
    pub fn over(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Option<Self> {
        let positive = values.filter(|value| *value > 0.0);
        let low = positive.clone().fold(f64::INFINITY, f64::min);
        let high = positive.fold(0.0, f64::max);
        if high == 0.0 || !high.is_finite() {
            return None;
        }
        Some(Self {
            low: below(low),
            high: above(high),
            from,
            to,
        })
    }

    /// The place of a value.
    pub fn at(&self, value: f64) -> f64 {
        let share = (value.max(self.low) / self.low).ln() / (self.high / self.low).ln();
        self.from + share * (self.to - self.from)
    }

    /// Values for grid lines, at most about a dozen.
    pub fn ticks(&self) -> Vec<f64> {
        let decades = (self.high / self.low).log10();
        let factors: &[f64] = if decades > 4.0 {
            &[1.0]
        } else if decades > 2.5 {
            &[1.0, 3.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let first = self.low.log10().floor() as i32;
        let last = self.high.log10().ceil() as i32;
        let all = (first..=last)
            .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)));
        all.filter(|tick| *tick >= self.low * 0.999 && *tick <= self.high * 1.001)
            .collect()
    }
}

const STEPS: [f64; 4] = [1.0, 2.0, 5.0, 10.0];

/// The largest of 1, 2, 5 times a power of ten that lies below.
fn below(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    STEPS
        .iter()
        .rev()
        .map(|step| step * power)
        .find(|place| *place < value)
        .unwrap_or(power / 2.0)
}

/// The smallest of 1, 2, 5 times a power of ten that lies above.
fn above(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    STEPS
        .iter()
        .map(|step| step * power)
        .find(|place| *place > value)
        .unwrap_or(power * 20.0)
}

/// A tick's label: `0.3`, `20`, `1 s`.
pub(super) fn label(ms: f64) -> String {
    if ms >= 1000.0 {
        format!("{} s", trimmed(ms / 1000.0))
    } else {
        format!("{} ms", trimmed(ms))
    }
}

/// A number without zeroes that say nothing.
pub(super) fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_holds_its_values_between_round_ends() {
        let scale = LogScale::over([0.3, 7.0, 23.0].into_iter(), 100.0, 500.0).unwrap();
        assert_eq!(
            (scale.at(0.2).round(), scale.at(50.0).round()),
            (100.0, 500.0)
        );
        assert!(scale.at(0.3) > 100.0 && scale.at(23.0) < 500.0);
        // Equal factors are equal lengths.
        let length = |from, to| scale.at(to) - scale.at(from);
        assert!((length(1.0, 10.0) - length(2.0, 20.0)).abs() < 1e-9);
        assert_eq!(scale.ticks().len(), 8);
    }

    #[test]
    fn a_single_value_and_none_at_all_are_no_problem() {
        let scale = LogScale::over([1.0].into_iter(), 0.0, 10.0).unwrap();
        assert!(scale.at(1.0) > 0.0 && scale.at(1.0) < 10.0);
        assert!(LogScale::over([].into_iter(), 0.0, 1.0).is_none());
        assert!(LogScale::over([0.0].into_iter(), 0.0, 1.0).is_none());
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(
            [0.3, 20.0, 1000.0, 20_000.0].map(label),
            ["0.3 ms", "20 ms", "1 s", "20 s"]
        );
    }
}
