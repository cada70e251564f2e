//! HTTP/1.1 over a thread per connection: a tiny model's clients are few, and its one model thread
//! is what they wait for.

mod chunks;

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::error::ApiError;

/// Largest body that is read.
const MAX_BODY_BYTES: usize = 8 << 20;
/// Largest request line and headers.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// Most headers.
const MAX_HEADERS: usize = 100;
/// How long a connection may be silent, and a client not take what it is sent.
const IDLE: Duration = Duration::from_secs(75);

/// The connection can no longer be used.
#[derive(Debug)]
pub(super) struct Closed;

impl From<io::Error> for Closed {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// A request that was read.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// Without the query.
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    pub(super) body: Vec<u8>,
}

/// What a handler made of a request.
#[derive(Debug)]
pub(super) enum Reply {
    /// A JSON value.
    Json(Value),
    /// A text of some type.
    Text(&'static str, String),
    /// Written to the client already, event by event.
    Written(Result<(), Closed>),
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    /// Bytes that were read and belong to the next request.
    unread: Vec<u8>,
    /// Whether the connection is used again.
    keeps_alive: bool,
    /// Whether the client understands pieces of unknown number.
    takes_chunks: bool,
}

impl Client {
    pub(super) fn new(stream: TcpStream) -> Result<Self, Closed> {
        // On some systems connections inherit this from a listener.
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(IDLE))?;
        stream.set_write_timeout(Some(IDLE))?;
        // Events are small and must not wait for one another.
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            unread: Vec::new(),
            keeps_alive: true,
            takes_chunks: true,
        })
    }

    pub(super) fn keeps_alive(&self) -> bool {
        self.keeps_alive
    }

    /// Ends the connection after the next response, whatever the client asks for. What it has sent is
    /// taken: a connection that is closed with unread bytes takes the response with it.
    pub(super) fn turn_away(&mut self) {
        self.keeps_alive = false;
        if self.stream.set_nonblocking(true).is_ok() {
            let _ = self.stream.read(&mut [0; 16 << 10]);
            let _ = self.stream.set_nonblocking(false);
        }
    }

    /// Whether the other end has closed the connection.
    pub(super) fn is_gone(&self) -> bool {
        if self.stream.set_nonblocking(true).is_err() {
            return true;
        }
        let peeked = self.stream.peek(&mut [0]);
        let is_gone = match peeked {
            Ok(num_bytes) => num_bytes == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        is_gone | self.stream.set_nonblocking(false).is_err()
    }

    /// Reads the next request; `Ok(Err(_))` is one that can only be refused.
    ///
    /// # Errors
    ///
    /// A connection that ends or stays silent.
    pub(super) fn read_request(&mut self) -> Result<Result<Request, ApiError>, Closed> {
        loop {
            match self.parse_head() {
                Ok(Some((request, head_len, head))) => {
                    self.unread.drain(..head_len);
                    return self.read_body(request, &head);
                }
                Ok(None) if self.unread.len() < MAX_HEAD_BYTES => self.read_more()?,
                Ok(None) => return Ok(Err(self.refuse(431, "the headers are too large"))),
                Err(message) => return Ok(Err(self.refuse(400, &message))),
            }
        }
    }

    /// The request without its body, the length of its head, and what the head says of the body.
    fn parse_head(&mut self) -> Result<Option<(Request, usize, Head)>, String> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        let status = parsed
            .parse(&self.unread)
            .map_err(|error| format!("not an HTTP request: {error}"))?;
        let httparse::Status::Complete(head_len) = status else {
            return Ok(None);
        };
        let target = parsed.path.unwrap_or("/");
        let path = target.split('?').next().unwrap_or(target).to_owned();
        let mut request = Request {
            method: parsed.method.unwrap_or_default().to_owned(),
            path,
            authorization: None,
            body: Vec::new(),
        };
        let is_new = parsed.version == Some(1);
        self.takes_chunks = is_new;
        self.keeps_alive = is_new;
        let mut head = Head::default();
        for header in parsed.headers.iter() {
            let value = String::from_utf8_lossy(header.value);
            match header.name.to_ascii_lowercase().as_str() {
                "authorization" => request.authorization = Some(value.into_owned()),
                "content-length" => {
                    let len = value.trim().parse();
                    head.body_len = len.map_err(|_| format!("content-length is {value}"))?;
                }
                "transfer-encoding" if value.trim().eq_ignore_ascii_case("chunked") => {
                    head.is_chunked = true;
                }
                "transfer-encoding" => return Err(format!("transfer-encoding is {value}")),
                "expect" => head.waits_for_continue = true,
                "connection" if value.to_ascii_lowercase().contains("close") => {
                    self.keeps_alive = false;
                }
                "connection" if value.to_ascii_lowercase().contains("keep-alive") => {
                    self.keeps_alive = true;
                }
                _ => {}
            }
        }
        Ok(Some((request, head_len, head)))
    }

    fn read_body(
        &mut self,
        mut request: Request,
        head: &Head,
    ) -> Result<Result<Request, ApiError>, Closed> {
        if !head.is_chunked && head.body_len > MAX_BODY_BYTES {
            // A client hears nothing before it has sent everything.
            self.skip(head.body_len)?;
            self.keeps_alive = false;
            return Ok(Err(ApiError::too_large()));
        }
        if head.waits_for_continue {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if head.is_chunked {
            let body = self.read_chunks()?;
            return Ok(body.map(|body| Request { body, ..request }));
        }
        while self.unread.len() < head.body_len {
            self.read_more()?;
        }
        request.body = self.unread.drain(..head.body_len).collect();
        Ok(Ok(request))
    }

    /// A request after which the connection cannot go on.
    fn refuse(&mut self, status: u16, message: &str) -> ApiError {
        self.keeps_alive = false;
        ApiError::http(status, message)
    }

    fn skip(&mut self, body_len: usize) -> Result<(), Closed> {
        let mut left = body_len.min(8 * MAX_BODY_BYTES);
        left = left.saturating_sub(self.unread.len());
        self.unread.clear();
        while left > 0 {
            self.read_more()?;
            left = left.saturating_sub(self.unread.len());
            self.unread.clear();
        }
        Ok(())
    }

    fn read_more(&mut self) -> Result<(), Closed> {
        let mut piece = [0; 16 << 10];
        let num_bytes = self.stream.read(&mut piece)?;
        if num_bytes == 0 {
            return Err(Closed);
        }
        self.unread.extend_from_slice(&piece[..num_bytes]);
        Ok(())
    }

    /// Sends a whole response.
    ///
    /// # Errors
    ///
    /// A client that is gone.
    pub(super) fn write(
        &mut self,
        status: u16,
        content_type: &str,
        more_headers: &str,
        body: &str,
    ) -> Result<(), Closed> {
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
             Connection: {}\r\n{more_headers}\r\n",
            reason(status),
            body.len(),
            self.connection(),
        );
        self.stream
            .write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        Ok(())
    }

    /// Sends the head of a stream of events.
    ///
    /// # Errors
    ///
    /// A client that is gone.
    pub(super) fn begin_events(&mut self) -> Result<(), Closed> {
        self.keeps_alive &= self.takes_chunks;
        let transfer = if self.takes_chunks {
            "Transfer-Encoding: chunked\r\n"
        } else {
            ""
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
             Cache-Control: no-cache\r\n{transfer}Connection: {}\r\n\r\n",
            self.connection(),
        );
        self.stream.write_all(head.as_bytes())?;
        Ok(())
    }

    /// Sends events.
    ///
    /// # Errors
    ///
    /// A client that is gone.
    pub(super) fn write_events(&mut self, text: &str) -> Result<(), Closed> {
        if text.is_empty() {
            return Ok(());
        }
        if self.takes_chunks {
            let chunk = format!("{:x}\r\n{text}\r\n", text.len());
            self.stream.write_all(chunk.as_bytes())?;
        } else {
            self.stream.write_all(text.as_bytes())?;
        }
        Ok(())
    }

    /// Ends the stream of events.
    ///
    /// # Errors
    ///
    /// A client that is gone.
    pub(super) fn end_events(&mut self) -> Result<(), Closed> {
        if self.takes_chunks {
            self.stream.write_all(b"0\r\n\r\n")?;
        }
        Ok(())
    }

    fn connection(&self) -> &'static str {
        if self.keeps_alive {
            "keep-alive"
        } else {
            "close"
        }
    }
}

/// What a request's head says of its body.
#[derive(Debug, Default)]
struct Head {
    body_len: usize,
    is_chunked: bool,
    waits_for_continue: bool,
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Payload Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    }
}
