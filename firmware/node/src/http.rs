//! Metrics over HTTP, for a scraper on the same machine.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// Maximum size of a request, in bytes.
const MAX_REQUEST: usize = 4096;
/// Maximum number of headers in a request.
const MAX_HEADERS: usize = 64;
/// Maximum duration of a request.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed `accept`, for example when the process is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The body for a path, if that path exists.
pub type Pages = Box<dyn Fn(&str) -> Option<String> + Send>;

/// Serves `GET` requests, one connection at a time, with bounds on size and duration.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Binds to `address`.
    ///
    /// # Errors
    /// If the address is not available.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        Ok(Self { listener })
    }

    /// The bound address.
    ///
    /// # Errors
    /// Same as for [`TcpListener::local_addr`].
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves `pages` until the process ends.
    pub fn serve(&self, pages: &Pages) {
        for stream in self.listener.incoming() {
            let served = match stream {
                Ok(stream) => handle(stream, pages),
                Err(e) => {
                    thread::sleep(ACCEPT_RETRY);
                    Err(e)
                }
            };
            if let Err(e) = served {
                log::debug!("http: {e}");
            }
        }
    }
}

fn handle(mut stream: TcpStream, pages: &Pages) -> io::Result<()> {
    stream.set_write_timeout(Some(TIMEOUT))?;
    let deadline = Instant::now() + TIMEOUT;
    let mut buffer = [0; MAX_REQUEST];
    let mut length = 0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return respond(
                &mut stream,
                "408 Request Timeout",
                "the request took too long\n",
            );
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer[length..])? {
            0 => return Ok(()),
            n => length += n,
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let (status, body) = match request.parse(&buffer[..length]) {
            Ok(httparse::Status::Partial) if length < MAX_REQUEST => continue,
            Ok(httparse::Status::Partial) => (
                "431 Request Header Fields Too Large",
                "the request is too long\n".to_owned(),
            ),
            Err(e) => ("400 Bad Request", format!("{e}\n")),
            Ok(httparse::Status::Complete(_)) => match (request.method, request.path) {
                (Some("GET"), Some(path)) => match pages(path) {
                    Some(body) => ("200 OK", body),
                    None => ("404 Not Found", "try /metrics or /health\n".to_owned()),
                },
                _ => (
                    "405 Method Not Allowed",
                    "only GET is supported\n".to_owned(),
                ),
            },
        };
        return respond(&mut stream, status, &body);
    }
}

fn respond(stream: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    #[test]
    fn pages_are_served_and_bad_requests_are_refused() {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = server.address().unwrap();
        let pages: Pages = Box::new(|path| (path == "/metrics").then(|| "x 1\n".into()));
        thread::spawn(move || server.serve(&pages));
        let found = request(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(
            found.starts_with("HTTP/1.1 200 OK\r\n") && found.ends_with("\r\n\r\nx 1\n"),
            "{found}"
        );
        let long = format!("GET /{} HTTP/1.1", "x".repeat(MAX_REQUEST));
        for (text, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("GET /metrics\r\n\r\n", "400"),
            ("\u{1}\u{2}\r\n\r\n", "400"),
            (&long[..MAX_REQUEST], "431"),
        ] {
            let response = request(address, text);
            assert!(
                response.starts_with(&format!("HTTP/1.1 {status} ")),
                "{text:?}: {response}"
            );
        }
        // A request in pieces.
        let mut stream = TcpStream::connect(address).unwrap();
        for piece in ["GET /met", "rics HTTP/1.1\r\n", "\r\n"] {
            stream.write_all(piece.as_bytes()).unwrap();
            stream.flush().unwrap();
        }
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.contains("200 OK"), "{response}");
    }
}
