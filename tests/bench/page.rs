//! The report in a real browser.

use crate::cache::{Cache, said};
use crate::{Test, harness, program};
use std::path::Path;
use std::process::{Command, Stdio};

pub const TESTS: &[Test] = &[
    ("the_report_is_drawn_by_a_browser", chromium, drawn),
    (
        "the_report_of_density_is_drawn_by_a_browser",
        chromium,
        crowds_drawn,
    ),
];

fn chromium() -> Result<(), String> {
    program("chromium").and_then(|()| harness::kvm())
}

/// Appended to a copy of the page: what the browser has made of it, as attributes of the body.
const PROBE: &str = "<script>
const drawn = (selector) => [...document.querySelectorAll(selector)]
    .filter((one) => { const box = one.getBoundingClientRect(); return box.width > 0 || box.height > 0; }).length;
const body = document.body.dataset;
body.boxes = drawn('rect.box');
body.curves = drawn('path.curve');
body.segments = drawn('rect.segment');
body.parts = drawn('g rect.part');
body.rows = document.querySelector('table').rows.length - 1;
body.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
body.outside = performance.getEntriesByType('resource').length;
body.page = getComputedStyle(document.body).backgroundColor;
</script>";

fn drawn() {
    let cache = Cache::new();
    let file = cache.temporary().with_file_name("report.html");
    let output = cache
        .bench(&[
            "startup",
            "--rounds",
            "5",
            "--only",
            "kvmlet-metal",
            "--report",
        ])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let page = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, page + PROBE).unwrap();
    for (width, dark) in [(1280, false), (1280, true), (420, false)] {
        let dom = open(&file, width, dark);
        for expected in [
            "data-boxes=\"2\"",
            "data-rows=\"2\"",
            "data-wide=\"false\"",
            "data-outside=\"0\"",
        ] {
            assert!(
                dom.contains(expected),
                "width {width}: no {expected} in {}",
                attributes(&dom)
            );
        }
        // One in the chart and one in the legend for each contestant.
        assert!(dom.contains("data-curves=\"4\""), "{}", attributes(&dom));
        let segments: usize = attribute(&dom, "data-segments").parse().unwrap();
        assert!(segments >= 10, "{}", attributes(&dom));
        let colour = if dark {
            "rgb(20, 23, 27)"
        } else {
            "rgb(251, 251, 250)"
        };
        assert_eq!(attribute(&dom, "data-page"), colour);
    }
}

fn crowds_drawn() {
    let cache = Cache::new();
    let file = cache.temporary().with_file_name("density.html");
    let only = ["--limit", "4", "--only", "kvmlet-metal-nojail", "--report"];
    let mut command = cache.bench(&["density"]);
    let output = command.args(only).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let page = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, page + PROBE).unwrap();
    for (width, dark) in [(1280, true), (420, false)] {
        let dom = open(&file, width, dark);
        for expected in [
            "data-wide=\"false\"",
            "data-outside=\"0\"",
            // 1, 2 and 4 of each.
            "data-rows=\"6\"",
        ] {
            assert!(
                dom.contains(expected),
                "width {width}: no {expected} in {}",
                attributes(&dom)
            );
        }
        // What the process has no guest RAM for is not drawn.
        let parts: usize = attribute(&dom, "data-parts").parse().unwrap();
        assert!((4..=6).contains(&parts), "{}", attributes(&dom));
        let curves: usize = attribute(&dom, "data-curves").parse().unwrap();
        assert!((4..=8).contains(&curves), "{}", attributes(&dom));
    }
}

/// The document as the browser has it in the end.
fn open(page: &Path, width: u32, dark: bool) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new("chromium");
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]);
    if dark {
        command.arg("--blink-settings=preferredColorScheme=0");
    }
    let output = command
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},900"))
        .args(["--dump-dom", &format!("file://{}", page.display())])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn attribute<'a>(dom: &'a str, name: &str) -> &'a str {
    let rest = dom
        .split(&format!("{name}=\""))
        .nth(1)
        .unwrap_or_else(|| panic!("no {name}"));
    rest.split('"').next().unwrap()
}

fn attributes(dom: &str) -> &str {
    let body = dom.split("<body").nth(1).unwrap_or(dom);
    body.split('>').next().unwrap_or(body)
}
