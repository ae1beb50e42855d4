//! A small HTTP server for tests, which answers as it is told, breaks off where it is told, and notes who asked what.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    /// By names in lower case.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Where `Range: bytes=N-` begins.
    pub fn from(&self) -> usize {
        let range = self
            .header("range")
            .and_then(|range| range.strip_prefix("bytes="));
        range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap())
    }
}

#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection ends after this many bytes of the body.
    pub cut: Option<usize>,
    /// Bytes in a second at the most.
    pub slow: Option<usize>,
    /// The body ends before it has begun, and what may stand behind it does not.
    pub endless: bool,
}

impl Response {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            cut: None,
            slow: None,
            endless: false,
        }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// It ends with the test's process.
pub struct Server {
    pub port: u16,
    seen: Arc<Mutex<Vec<(Request, usize)>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, notes) = (Arc::new(answer), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, notes) = (Arc::clone(&answer), Arc::clone(&notes));
                std::thread::spawn(move || serve(&stream.unwrap(), &*answer, &notes));
            }
        });
        Self { port, seen }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// All requests so far, each with the bytes of the body that went out.
    pub fn seen(&self) -> Vec<(Request, usize)> {
        self.seen.lock().unwrap().clone()
    }

    /// Bytes of blobs that went out, and of how many requests.
    pub fn blobs(&self) -> (usize, usize) {
        let seen = self.seen();
        let blobs = seen
            .iter()
            .filter(|(request, _)| request.method == "GET" && request.path.contains("/blobs/"));
        blobs.fold((0, 0), |(bytes, count), (_, sent)| {
            (bytes + sent, count + 1)
        })
    }
}

/// What a test says to a connection.
fn serve(
    stream: &TcpStream,
    answer: &dyn Fn(&Request) -> Response,
    notes: &Mutex<Vec<(Request, usize)>>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let request = read_request(&mut reader)?;
        let response = answer(&request);
        let place = {
            let mut notes = notes.lock().unwrap();
            notes.push((request.clone(), 0));
            notes.len() - 1
        };
        let sent = send(stream, &request, &response, &|count| {
            notes.lock().unwrap()[place].1 += count;
        });
        let is_last = request.header("connection") == Some("close");
        if sent.is_none() || response.cut.is_some() || is_last {
            let _ = stream.shutdown(Shutdown::Both);
            return None;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .ok()
        .filter(|count| *count > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        method,
        path,
        headers,
    })
}

fn send(
    mut stream: &TcpStream,
    request: &Request,
    response: &Response,
    note: &dyn Fn(usize),
) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} X\r\n", response.status);
    if response.endless {
        head.push_str("Transfer-Encoding: chunked\r\n\r\n0\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        loop {
            std::thread::sleep(std::time::Duration::from_millis(50));
            stream.write_all(b"A: behind the end\r\n").ok()?;
        }
    }
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !response
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-length"))
    {
        head.push_str(&format!("Content-Length: {}\r\n", response.body.len()));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if request.method == "HEAD" {
        return Some(());
    }
    let end = response
        .cut
        .map_or(response.body.len(), |cut| cut.min(response.body.len()));
    let piece = response.slow.map_or(64 << 10, |slow| slow / 20).max(1);
    for piece in response.body[..end].chunks(piece) {
        stream.write_all(piece).ok()?;
        note(piece.len());
        if response.slow.is_some() {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    Some(())
}

/// The answer of the server at `port` to the same request.
pub fn forward(port: u16, request: &Request) -> Response {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut head = format!(
        "{} {} HTTP/1.1\r\nConnection: close\r\n",
        request.method, request.path
    );
    for (name, value) in &request.headers {
        if name != "connection" {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap();
    let text = String::from_utf8(all[..end].to_vec()).unwrap();
    let mut lines = text.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let mut response = Response::new(status, &all[end + 4..]);
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        let drop = ["connection", "transfer-encoding", "content-length"];
        // The length of what is only asked about is told in its header.
        let keep = !drop.contains(&&*name.to_lowercase()) || request.method == "HEAD";
        if keep {
            response = response.header(name, value);
        }
    }
    if text.to_lowercase().contains("transfer-encoding: chunked") {
        response.body = unchunked(&response.body);
    }
    response
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = bytes
            .windows(2)
            .position(|window| window == b"\r\n")
            .unwrap();
        let length =
            usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return whole;
        }
        whole.extend_from_slice(&bytes[end + 2..][..length]);
        bytes = &bytes[end + 2 + length + 2..];
    }
}
