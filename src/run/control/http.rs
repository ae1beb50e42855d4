//! As much of HTTP/1.1 (RFC 9112) as a scraper speaks: `GET /metrics`, once a connection.

/// What a request begins with. As the length of a message it would be too much.
pub(super) const BEGINNING: &[u8] = b"GET ";
/// No request's head is longer.
pub(super) const LONGEST_HEAD: usize = 4 << 10;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The head is not there as a whole.
    NotYet,
    /// Statistics.
    Metrics,
    /// Nothing that there is: this is the answer.
    Other(String),
}

/// Reads a request's head.
pub(super) fn asked(head: &[u8]) -> Asked {
    let is_whole =
        head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n");
    if !is_whole {
        return match head.len() < LONGEST_HEAD {
            true => Asked::NotYet,
            false => Asked::Other(answer(
                "431 Request Header Fields Too Large",
                PLAIN,
                "too long\n",
            )),
        };
    }
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next();
    let mut words = line.unwrap_or_default().split(|byte| *byte == b' ').skip(1);
    let path = words.next().unwrap_or_default();
    match path.split(|byte| *byte == b'?').next() {
        Some(b"/metrics") => Asked::Metrics,
        _ => Asked::Other(answer(
            "404 Not Found",
            PLAIN,
            "there is /metrics, and nothing else\n",
        )),
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";
/// <https://prometheus.io/docs/specs/om/open_metrics_spec>, "Protocol Negotiation".
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Statistics.
pub(super) fn metrics(text: &str) -> String {
    answer("200 OK", OPEN_METRICS, text)
}

/// Why there are none.
pub(super) fn unavailable(why: &str) -> String {
    answer("503 Service Unavailable", PLAIN, &format!("{why}\n"))
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapers_are_understood() {
        for head in [
            "GET /metrics HTTP/1.1\r\nHost: vm\r\nAccept: */*\r\n\r\n",
            "GET /metrics?x=1 HTTP/1.0\n\n",
        ] {
            assert_eq!(asked(head.as_bytes()), Asked::Metrics, "{head}");
            for end in 0..head.len() - 1 {
                assert_eq!(
                    asked(&head.as_bytes()[..end]),
                    Asked::NotYet,
                    "{end} of {head}"
                );
            }
        }
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET  \r\n\r\n",
            "GET /metricsx HTTP/1.1\r\n\r\n",
        ] {
            let Asked::Other(answer) = asked(head.as_bytes()) else {
                panic!("{head}");
            };
            assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        }
        let Asked::Other(answer) = asked(&[b'x'; LONGEST_HEAD]) else {
            panic!("it has an end");
        };
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}
