use super::*;
use crate::bench::contestant::Kind;
use crate::bench::facts::HostFacts;
use crate::bench::phases::Segment;
use crate::bench::sample::{Outcome, Sample, Series, Times};
use crate::bench::statistics::Summary;
use std::time::Duration;

fn series(micros: &[u64]) -> Series {
    let mut series = Series::default();
    for (round, micros) in micros.iter().enumerate() {
        let ready = Duration::from_micros(*micros);
        let outcome = Outcome::Ready(Times {
            ready,
            gone: Some(ready * 2),
        });
        series.push(Sample {
            round,
            warm_up: false,
            outcome,
        });
    }
    series
}

fn contender(name: &'static str, kind: Kind, samples: Series, base: &Series) -> Contender {
    Contender {
        name,
        about: "something",
        kind,
        presence: Presence::Present {
            version: "1 <beta>".into(),
        },
        command: vec![name.into(), "a&b".into()],
        figures: samples.figures(Some(base)),
        effort: None,
        samples,
    }
}

fn result() -> Startup {
    let base = series(&[300, 310, 320]);
    let mut failing = Series::default();
    let outcome = Outcome::Failed {
        error: "<script>alert(1)</script>".into(),
    };
    failing.push(Sample {
        round: 0,
        warm_up: false,
        outcome,
    });
    let mut absent = contender("podman", Kind::Container, Series::default(), &base);
    absent.presence = Presence::Absent {
        install: "apt-get install podman".into(),
    };
    Startup {
        benchmark: "startup",
        kvmlet: "0.0",
        clock: "A clock.",
        service: "A service.",
        rounds: 3,
        host: HostFacts::read(),
        warnings: vec!["Beware.".into()],
        contestants: vec![
            contender("process", Kind::Process, base.clone(), &base),
            contender(
                "crun",
                Kind::Container,
                series(&[9000, 10_000, 11_000]),
                &base,
            ),
            contender("runc", Kind::Container, failing, &base),
            absent,
        ],
        phases: vec![Segment {
            name: "create VM".into(),
            summary: Summary::of(&[0.2]).unwrap(),
        }],
    }
}

#[test]
fn the_page_shows_everything_and_needs_nothing() {
    let page = startup(&result());
    for part in [
        "Beware.",
        "process",
        "crun",
        "10.0 ms",
        "apt-get install podman",
        "1 of 1 starts failed",
        "create VM",
        "1 &lt;beta&gt;",
        "a&amp;b",
    ] {
        assert!(page.contains(part), "no {part:?} in {page}");
    }
    for outside in ["http:", "https:", "src=", "url(", "@import", "<script"] {
        assert!(!page.contains(outside), "{outside} in {page}");
    }
}

#[test]
fn what_others_say_cannot_become_part_of_the_page() {
    assert_eq!(
        escape("<b a=\"1\">&\x1b[0m"),
        "&lt;b a=&quot;1&quot;&gt;&amp; [0m"
    );
}

#[test]
fn tags_are_balanced() {
    let page = startup(&result());
    for tag in [
        "section", "svg", "g", "table", "tr", "td", "ul", "div", "span", "text", "main", "details",
    ] {
        let opened =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn without_any_times_there_is_still_a_page() {
    let mut nothing = result();
    nothing.contestants.clear();
    nothing.phases.clear();
    let page = startup(&nothing);
    assert!(!page.contains("<svg"));
    assert!(page.contains("Beware."));
}
