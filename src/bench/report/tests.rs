use super::*;
use crate::contestant::Kind;
use crate::density::{Crowd, Density, Level};
use crate::facts::HostFacts;
use crate::memory::Memory;
use crate::phases::Segment;
use crate::sample::{Outcome, Sample, Series, Times};
use crate::startup::{Contender, Startup};
use crate::statistics::Summary;
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
        beside: None,
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
        beside: 0,
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

fn crowd(name: &'static str, levels: &[(usize, f64)]) -> Crowd {
    let level = |(instances, mib): &(usize, f64)| Level {
        instances: *instances,
        started: 1,
        starts_per_second: 100.0,
        each: Memory {
            guest_ram: mib / 2.0,
            guest_own: mib / 2.0,
            private: mib / 4.0,
            page_cache: mib / 4.0,
        },
        host_each: *mib,
    };
    Crowd {
        name,
        about: "something",
        kind: Kind::BareMetal,
        presence: Presence::Present {
            version: "1 <beta>".into(),
        },
        command: vec![name.into(), "a&b".into()],
        levels: levels.iter().map(level).collect(),
        stopped: "the <limit>".into(),
    }
}

fn crowds() -> Density {
    let mut absent = crowd("podman", &[]);
    absent.presence = Presence::Absent {
        install: "apt-get install podman".into(),
    };
    Density {
        benchmark: "density",
        kvmlet: "0.0",
        method: "A method.",
        parallel: 2,
        host: HostFacts::read(),
        warnings: vec!["Beware.".into()],
        contestants: vec![
            crowd("kvmlet", &[(1, 4.0), (2, 3.0), (4, 2.5)]),
            crowd("other", &[(1, 40.0)]),
            absent,
        ],
    }
}

#[test]
fn the_page_of_crowds_shows_everything_and_needs_nothing() {
    let page = density(&crowds());
    for part in [
        "Beware.",
        "2.50 MiB",
        "40.0 MiB",
        "the &lt;limit&gt;",
        "apt-get install podman",
        "a&amp;b",
        "A method.",
        "100 /s",
    ] {
        assert!(page.contains(part), "no {part:?} in {page}");
    }
    // A part each of guest RAM, private memory and page cache, and the three of the legend.
    assert_eq!(page.matches("<rect class=\"part\"").count(), 2 * 3 + 3);
    // One level makes no curve: one contestant in two charts and their legends.
    assert_eq!(page.matches("<path class=\"curve").count(), 4);
    assert_balanced(&page);
    needs_nothing(&page);
    let mut nothing = crowds();
    nothing.contestants.clear();
    assert!(!density(&nothing).contains("<svg"));
}

fn needs_nothing(page: &str) {
    for outside in ["http:", "https:", "src=", "url(", "@import", "<script"] {
        assert!(!page.contains(outside), "{outside} in {page}");
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
    needs_nothing(&page);
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
    assert_balanced(&startup(&result()));
}

fn assert_balanced(page: &str) {
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
