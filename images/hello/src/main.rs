//! An HTTP server that answers each connection once and says hello: what a guest runs to show, or
//! to measure, that a service answers from inside it.
//!
//! It is one thread without a poll loop, because in a guest on an interpreting KVM each system
//! call counts. A client that sends nothing is given up after a second.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

const DEFAULT_PORT: u16 = 80;
const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);
/// A longer request head is not read to its end.
const MAX_REQUEST_BYTES: usize = 8 << 10;

fn main() -> ExitCode {
    let port = match std::env::args().nth(1).map(|port| (port.parse(), port)) {
        None => DEFAULT_PORT,
        Some((Ok(port), _)) => port,
        Some((Err(error), text)) => {
            eprintln!("hello: {text}: {error}");
            eprintln!("usage: hello [PORT]");
            return ExitCode::from(2);
        }
    };
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("hello: cannot listen on port {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    eprintln!("hello: listening on port {port}");
    for client in listener.incoming() {
        // A client that has gone away is no reason to stop.
        if let Err(error) = client.and_then(answer) {
            eprintln!("hello: {error}");
        }
    }
    ExitCode::SUCCESS
}

/// Reads one request and answers it.
fn answer(mut client: TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    let mut request = [0; MAX_REQUEST_BYTES];
    let mut length = 0;
    // An empty line ends the head of a request (RFC 9112 §2.1); a body is of no interest.
    while !request[..length].windows(4).any(|end| end == b"\r\n\r\n") {
        match client.read(&mut request[length..])? {
            0 => break,
            read => length += read,
        }
    }
    client.write_all(response(&request[..length]).as_bytes())
}

fn response(request: &[u8]) -> String {
    let (status, body) = if request.starts_with(b"GET ") || request.starts_with(b"HEAD ") {
        ("200 OK", "Hello from a microVM\n")
    } else {
        ("405 Method Not Allowed", "Only GET and HEAD are answered\n")
    };
    let length = body.len();
    let body = if request.starts_with(b"HEAD ") {
        ""
    } else {
        body
    };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn get_is_answered_with_a_body_of_the_length_it_says() {
        let response = response(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{head}"
        );
    }

    #[test]
    fn head_has_no_body() {
        assert!(response(b"HEAD / HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
    }

    #[test]
    fn other_methods_are_refused() {
        for request in [&b"POST / HTTP/1.1\r\n\r\n"[..], b"", b"GETX"] {
            assert!(response(request).starts_with("HTTP/1.1 405 "));
        }
    }

    #[test]
    fn one_request_is_answered_per_connection() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = std::thread::spawn(move || answer(listener.accept().unwrap().0));
        // In two parts: the head is awaited.
        client.write_all(b"GET / HT").unwrap();
        client.write_all(b"TP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("Hello from a microVM\n"), "{text}");
        server.join().unwrap().unwrap();
    }
}
