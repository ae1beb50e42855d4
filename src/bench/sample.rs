//! Measurements as they were taken: nothing is thrown away.

use super::statistics::{Ratio, Summary};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::time::Duration;

/// What one start took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Times {
    /// From right before the spawn to the service's line `ready`, in milliseconds.
    #[serde(rename = "ready_ms", serialize_with = "milliseconds")]
    pub ready: Duration,
    /// From right before the spawn to the end of the started process, in milliseconds; not there if it had to
    /// be killed.
    #[serde(
        rename = "gone_ms",
        serialize_with = "some_milliseconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub gone: Option<Duration>,
}

/// One start: what it took, or why it failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// The service was ready.
    Ready(Times),
    /// It was not.
    Failed {
        /// What the launcher said, or what the benchmark saw.
        error: String,
    },
}

/// One start in its round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Number of the round, from 0; warm-up rounds are counted apart.
    pub round: usize,
    /// Taken before the rounds that count.
    pub warm_up: bool,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// All starts of one contestant, in order.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Series {
    samples: Vec<Sample>,
}

impl Series {
    /// Adds a start.
    pub fn push(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// Every start, warm-up and failures included.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    fn times(&self) -> impl Iterator<Item = Times> {
        self.samples
            .iter()
            .filter(|sample| !sample.warm_up)
            .filter_map(|sample| match sample.outcome {
                Outcome::Ready(times) => Some(times),
                Outcome::Failed { .. } => None,
            })
    }

    /// Milliseconds to `ready` of the starts that count.
    pub fn ready_ms(&self) -> Vec<f64> {
        self.times().map(|times| ms(times.ready)).collect()
    }

    /// Milliseconds to the end of those starts that ended by themselves.
    pub fn gone_ms(&self) -> Vec<f64> {
        self.times()
            .filter_map(|times| times.gone)
            .map(ms)
            .collect()
    }

    /// The starts that failed, those of the warm-up included.
    pub fn failures(&self) -> impl Iterator<Item = &str> {
        self.samples
            .iter()
            .filter_map(|sample| match &sample.outcome {
                Outcome::Failed { error } => Some(error.as_str()),
                Outcome::Ready(_) => None,
            })
    }

    /// Each message of a failure once, with how often it came.
    pub fn failures_by_message(&self) -> BTreeMap<&str, usize> {
        let mut messages = BTreeMap::new();
        for error in self.failures() {
            *messages.entry(error).or_default() += 1;
        }
        messages
    }

    /// The figures of this series, with its time to `ready` in terms of that of `base`.
    pub fn figures(&self, base: Option<&Series>) -> Figures {
        let ready = self.ready_ms();
        Figures {
            ready_ms: Summary::of(&ready),
            gone_ms: Summary::of(&self.gone_ms()),
            to_process: base.and_then(|base| Ratio::of(&ready, &base.ready_ms())),
            failed: self.failures().count(),
        }
    }
}

/// What a series comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Time to `ready` in milliseconds.
    pub ready_ms: Option<Summary>,
    /// Time to the end in milliseconds.
    pub gone_ms: Option<Summary>,
    /// Time to `ready` in terms of the bare process's.
    pub to_process: Option<Ratio>,
    /// Starts that failed.
    pub failed: usize,
}

/// A time in milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(ms(*time))
}

fn some_milliseconds<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(ms).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(round: usize, warm_up: bool, millis: u64, gone: Option<u64>) -> Sample {
        let gone = gone.map(Duration::from_millis);
        Sample {
            round,
            warm_up,
            outcome: Outcome::Ready(Times {
                ready: Duration::from_millis(millis),
                gone,
            }),
        }
    }

    #[test]
    fn warm_up_and_failures_are_kept_and_do_not_count() {
        let mut series = Series::default();
        series.push(ready(0, true, 100, None));
        series.push(ready(0, false, 2, Some(3)));
        series.push(Sample {
            round: 1,
            warm_up: false,
            outcome: Outcome::Failed { error: "no".into() },
        });
        series.push(ready(2, false, 4, None));
        assert_eq!(series.samples().len(), 4);
        assert_eq!(series.ready_ms(), [2.0, 4.0]);
        assert_eq!(series.gone_ms(), [3.0]);
        let mut base = Series::default();
        base.push(ready(0, false, 1, None));
        let figures = series.figures(Some(&base));
        assert_eq!(figures.ready_ms.unwrap().median, 3.0);
        assert_eq!(figures.to_process.unwrap().ratio, 3.0);
        assert_eq!(figures.failed, 1);
    }

    #[test]
    fn a_sample_is_one_flat_object() {
        let text = serde_json::to_string(&ready(3, false, 2, Some(5))).unwrap();
        assert_eq!(
            text,
            r#"{"round":3,"warm_up":false,"ready_ms":2.0,"gone_ms":5.0}"#
        );
        let failed = Sample {
            round: 0,
            warm_up: true,
            outcome: Outcome::Failed { error: "no".into() },
        };
        assert_eq!(
            serde_json::to_string(&failed).unwrap(),
            r#"{"round":0,"warm_up":true,"error":"no"}"#
        );
    }
}
