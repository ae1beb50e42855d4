//! Requests and answers, one by one: redirections are followed here, and nobody but the registry is shown who asks.

use std::io::{self, Read};
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Method, Request, Response, Uri, header};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, ResponseExt};

/// What a connection may keep silent for.
const SILENCE: Duration = Duration::from_secs(30);
const CONNECTING: Duration = Duration::from_secs(20);
/// What an answer may take that has a bound, and the beginning of one that has none.
pub const ANSWERING: Duration = Duration::from_secs(60);
/// The same for what may follow the body, which nobody gets to see: longer, so that who reads can tell of the former.
pub const RECEIVING: Duration = Duration::from_secs(90);
/// More is a circle.
const MAX_REDIRECTS: usize = 10;

/// A way to send requests, with connections that are kept for the next one.
pub fn agent(tls: TlsConfig) -> Agent {
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("kvmlet/", env!("CARGO_PKG_VERSION")))
        // What is asked for is what a digest is of.
        .accept_encoding("identity")
        .timeout_resolve(Some(CONNECTING))
        .timeout_connect(Some(CONNECTING))
        .timeout_recv_response(Some(ANSWERING))
        .timeout_per_read(Some(SILENCE))
        .timeout_per_write(Some(SILENCE))
        .input_buffer_size(64 << 10)
        .build()
        .into()
}

/// A request that can be sent again.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// What is to be done.
    pub method: Method,
    /// With what.
    pub url: String,
    /// Besides `Authorization`.
    pub headers: Vec<(header::HeaderName, String)>,
    /// What is sent along.
    pub body: &'a [u8],
    /// How long the body of its answer may take, and what a server sends behind that, which has no other bound.
    pub receiving: Duration,
}

impl Ask<'_> {
    /// To look at something.
    pub fn get(url: String) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: Vec::new(),
            body: &[],
            receiving: RECEIVING,
        }
    }

    /// Lets the body of the answer take longer.
    pub fn receiving(self, receiving: Duration) -> Self {
        Self { receiving, ..self }
    }

    /// Adds a header.
    pub fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends it, and follows where the answer leads. `Authorization` goes to that host only that is asked first; whose
    /// the answer is, [`is_of`] tells.
    pub fn send(
        &self,
        agent: &Agent,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, ureq::Error> {
        let since = Instant::now();
        let mut url = self.url.clone();
        for _ in 0..MAX_REDIRECTS {
            if since.elapsed() > ANSWERING {
                return Err(ureq::Error::Timeout(ureq::Timeout::Global));
            }
            let shown = authorization.filter(|_| is_same_origin(&url, &self.url));
            let answer = self.send_once(agent, &url, shown)?;
            let leads = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let follows = leads && matches!(self.method, Method::GET | Method::HEAD);
            let location = text(answer.headers(), &header::LOCATION);
            let Some(location) = location.filter(|_| follows) else {
                return Ok(answer);
            };
            let next = resolve(&url, &location).ok_or(ureq::Error::RedirectFailed)?;
            if url.starts_with("https:") && !next.starts_with("https:") {
                return Err(ureq::Error::RedirectFailed);
            }
            url = next;
        }
        Err(ureq::Error::TooManyRedirects)
    }

    fn send_once(
        &self,
        agent: &Agent,
        url: &str,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut request = Request::builder().method(self.method.clone()).uri(url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let receiving = Some(self.receiving);
        match matches!(self.method, Method::GET | Method::HEAD) {
            true => {
                let request = agent.configure_request(request.body(())?);
                agent.run(request.timeout_recv_body(receiving).build())
            }
            false => {
                let request = agent.configure_request(request.body(self.body)?);
                agent.run(request.timeout_recv_body(receiving).build())
            }
        }
    }
}

/// A header, if it is text.
pub fn text(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// What is read of an answer, up to a bound of bytes and of time.
pub fn read(answer: Response<Body>, limit: usize) -> io::Result<Vec<u8>> {
    let since = Instant::now();
    let (mut bytes, mut piece) = (Vec::new(), [0; 16 << 10]);
    let mut reader = answer.into_body().into_reader();
    loop {
        let count = reader.read(&mut piece)?;
        bytes.extend_from_slice(&piece[..count]);
        match count {
            0 => return Ok(bytes),
            _ if bytes.len() > limit => return Err(io::ErrorKind::FileTooLarge.into()),
            _ if since.elapsed() > ANSWERING => return Err(io::ErrorKind::TimedOut.into()),
            _ => {}
        }
    }
}

/// Whether an answer comes from the protocol, host and port of a URL, and not from where that led.
pub fn is_of(answer: &Response<Body>, url: &str) -> bool {
    is_same_origin(&answer.get_uri().to_string(), url)
}

/// Who has answered: protocol, host and port.
pub fn place(answer: &Response<Body>) -> String {
    let uri = answer.get_uri();
    let port = uri.port_u16().map(|port| format!(":{port}"));
    format!(
        "{}://{}{}",
        uri.scheme_str().unwrap_or_default(),
        uri.host().unwrap_or_default(),
        port.unwrap_or_default()
    )
}

/// Whether two URLs are of one protocol, host and port.
pub fn is_same_origin(one: &str, other: &str) -> bool {
    origin(one).is_some_and(|one| Some(one) == origin(other))
}

/// Protocol, host and port of a URL.
fn origin(url: &str) -> Option<(String, String, Option<u16>)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let default = if scheme == "https" { 443 } else { 80 };
    let host = uri.host()?.to_ascii_lowercase();
    Some((scheme, host, Some(uri.port_u16().unwrap_or(default))))
}

/// Where a `Location` leads from a URL (RFC 3986, as far as servers use it); nothing if it is no web's.
pub fn resolve(from: &str, location: &str) -> Option<String> {
    // What follows `#` is for browsers.
    let location = location.split('#').next()?.trim();
    let base: Uri = from.parse().ok()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let next = if location.contains("://")
        && location
            .split("://")
            .next()?
            .bytes()
            .all(|b| b.is_ascii_alphanumeric())
    {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let (directory, _) = base.path().rsplit_once('/')?;
        format!("{scheme}://{authority}{directory}/{location}")
    };
    let uri: Uri = next.parse().ok()?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    (is_web && uri.host().is_some()).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved() {
        let from = "https://host:5000/v2/a/blobs/x?y=1";
        for (location, expected) in [
            ("https://other/z", Some("https://other/z")),
            ("//other/z", Some("https://other/z")),
            ("/z?q", Some("https://host:5000/z?q")),
            ("z", Some("https://host:5000/v2/a/blobs/z")),
            ("?q", Some("https://host:5000/v2/a/blobs/x?q")),
            ("/z#part", Some("https://host:5000/z")),
            ("file:///etc/passwd", None),
            ("https:///nowhere", None),
            ("/a?b=http://c", Some("https://host:5000/a?b=http://c")),
        ] {
            assert_eq!(resolve(from, location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn an_origin_is_protocol_host_and_port() {
        assert_eq!(origin("https://Host/x"), origin("https://host:443/y"));
        for other in [
            "http://host/x",
            "https://host:5000/x",
            "https://host.evil/x",
            "https://evil/host",
        ] {
            assert_ne!(origin("https://host/x"), origin(other), "{other}");
        }
        // A user's name in front of the host is not the host.
        assert_ne!(origin("https://host/x"), origin("https://host@evil/x"));
    }
}
