//! Bodies whose length is known at their end only: chunks, each with its length before it.
//!
//! Source: RFC 9112, section 7.1.

use super::super::error::ApiError;
use super::{Client, Closed, MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_HEADERS};

/// The line end behind each chunk.
const LINE_END: &[u8] = b"\r\n";

impl Client {
    /// Reads a body of chunks and what stands behind it, which says nothing to this server.
    ///
    /// # Errors
    ///
    /// A connection that ends or stays silent.
    pub(super) fn read_chunks(&mut self) -> Result<Result<Vec<u8>, ApiError>, Closed> {
        let mut body = Vec::new();
        loop {
            let size = httparse::parse_chunk_size(&self.unread);
            let (head_len, len) = match size {
                Ok(httparse::Status::Complete(size)) => size,
                Ok(httparse::Status::Partial) if self.unread.len() < MAX_HEAD_BYTES => {
                    self.read_more()?;
                    continue;
                }
                Ok(httparse::Status::Partial) | Err(_) => return Ok(Err(self.refuse_chunks())),
            };
            if len > (MAX_BODY_BYTES - body.len()) as u64 {
                self.keeps_alive = false;
                return Ok(Err(ApiError::too_large()));
            }
            self.unread.drain(..head_len);
            if len == 0 {
                return Ok(self.skip_trailers()?.map(|()| body));
            }
            let len = len as usize;
            while self.unread.len() < len + LINE_END.len() {
                self.read_more()?;
            }
            body.extend(self.unread.drain(..len));
            if !self.unread.starts_with(LINE_END) {
                return Ok(Err(self.refuse_chunks()));
            }
            self.unread.drain(..LINE_END.len());
        }
    }

    /// Reads what may follow the last chunk: headers, and an empty line.
    fn skip_trailers(&mut self) -> Result<Result<(), ApiError>, Closed> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            match httparse::parse_headers(&self.unread, &mut headers) {
                Ok(httparse::Status::Complete((len, _))) => {
                    self.unread.drain(..len);
                    return Ok(Ok(()));
                }
                Ok(httparse::Status::Partial) if self.unread.len() < MAX_HEAD_BYTES => {
                    self.read_more()?;
                }
                Ok(httparse::Status::Partial) | Err(_) => return Ok(Err(self.refuse_chunks())),
            }
        }
    }

    fn refuse_chunks(&mut self) -> ApiError {
        self.refuse(400, "the chunks of the body are broken")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Methods with bodies, and the status of the refusal that ends them.
    fn read_all(sent: &str) -> (Vec<(String, String)>, Option<u16>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut other_end = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut client = Client::new(listener.accept().unwrap().0).unwrap();
        other_end.write_all(sent.as_bytes()).unwrap();
        drop(other_end);
        let mut requests = Vec::new();
        loop {
            match client.read_request() {
                Ok(Ok(request)) => {
                    let body = String::from_utf8(request.body).unwrap();
                    requests.push((request.method, body));
                }
                Ok(Err(error)) => return (requests, Some(error.status())),
                Err(Closed) => return (requests, None),
            }
        }
    }

    const HEAD: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n";

    /// Two chunks, the second with an extension, and a trailer; the next request follows at once.
    #[test]
    fn chunks_are_one_body() {
        let sent =
            format!("{HEAD}3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nA: b\r\n\r\n{HEAD}0\r\n\r\n");
        let post = |body: &str| ("POST".to_owned(), body.to_owned());
        assert_eq!(
            read_all(&sent),
            (vec![post("abc0123456789"), post("")], None)
        );
    }

    /// No length, a length that is not the chunk's, one beyond what is read, another encoding.
    #[test]
    fn broken_chunks_are_refused() {
        for (body, status) in [
            ("x\r\nabc\r\n", 400),
            ("2\r\nabc\r\n", 400),
            ("7fffffffffffffff\r\nabc", 413),
            ("0\r\n:\r\n\r\n", 400),
        ] {
            assert_eq!(
                read_all(&format!("{HEAD}{body}")),
                (Vec::new(), Some(status))
            );
        }
        let gzip = "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n";
        assert_eq!(read_all(gzip), (Vec::new(), Some(400)));
    }
}
