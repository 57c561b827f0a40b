//! Metrics over HTTP, for a scraper on the same machine.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

/// Longest request that is read.
const MOST: usize = 4096;
/// The longest that one request may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Outputs `GET /metrics` and `GET /health`, one request after the other.
pub struct Server {
    address: SocketAddr,
}

/// What is processed: metrics, and the state in a line.
pub type Page = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

impl Server {
    /// Listens and answers on a thread of its own, until the process ends. `page` gives the body
    /// for a path, where there is one.
    ///
    /// # Errors
    /// Where the address is taken.
    pub fn start(listen: SocketAddr, page: Page) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let address = listener.local_addr()?;
        std::thread::Builder::new()
            .name("http".into())
            .spawn(move || {
                for stream in listener.incoming() {
                    match stream {
                        Ok(stream) => {
                            if let Err(e) = answer(stream, &page) {
                                log::debug!("http: {e}");
                            }
                        }
                        Err(e) => {
                            log::debug!("http: {e}");
                            std::thread::sleep(Duration::from_millis(100));
                        }
                    }
                }
            })?;
        Ok(Self { address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn answer(mut stream: TcpStream, page: &Page) -> io::Result<()> {
    stream.set_write_timeout(Some(LIMIT))?;
    let end = Instant::now() + LIMIT;
    let mut request = [0; MOST];
    let mut length = 0;
    while !request[..length].windows(4).any(|w| w == b"\r\n\r\n") {
        let left = end.saturating_duration_since(Instant::now());
        if length == MOST || left.is_zero() {
            return respond(&mut stream, "400 Bad Request", "too long or too slow\n");
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut request[length..])? {
            0 => return Ok(()),
            n => length += n,
        }
    }
    let text = String::from_utf8_lossy(&request[..length]);
    let mut words = text.split_ascii_whitespace();
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    if method != "GET" {
        return respond(&mut stream, "405 Method Not Allowed", "only GET\n");
    }
    match page(path) {
        Some(body) => respond(&mut stream, "200 OK", &body),
        None => respond(
            &mut stream,
            "404 Not Found",
            "there are /metrics and /health\n",
        ),
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

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn pages_are_found_and_nonsense_is_refused() {
        let page: Page = Arc::new(|path| (path == "/metrics").then(|| "x 1\n".into()));
        let server = Server::start("127.0.0.1:0".parse().unwrap(), page).unwrap();
        let at = server.address();
        let found = ask(at, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(
            found.starts_with("HTTP/1.1 200 OK\r\n") && found.ends_with("\r\n\r\nx 1\n"),
            "{found}"
        );
        assert!(ask(at, "GET / HTTP/1.1\r\n\r\n").contains("404"));
        assert!(ask(at, "POST /metrics HTTP/1.1\r\n\r\n").contains("405"));
        assert!(ask(at, &"x".repeat(MOST)).contains("400"));
    }
}
