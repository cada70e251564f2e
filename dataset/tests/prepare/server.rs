//! A hub on this machine: the routes of huggingface.co that downloads use, with the faults that a
//! network has.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The commit of every data set of this hub.
pub(crate) const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong with the next answer that has a file's content.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The answer is this status.
    Status(u16),
    /// The connection breaks off after so many bytes.
    Cut(usize),
    /// The bytes are others.
    Garbled,
}

/// A hub that serves the folders `owner/name` of a folder.
pub(crate) struct HubServer {
    pub(crate) endpoint: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    root: PathBuf,
    faults: Mutex<VecDeque<Fault>>,
    /// Paths that were asked for, with the range of those that had one.
    log: Mutex<Vec<String>>,
}

impl HubServer {
    pub(crate) fn start(root: impl Into<PathBuf>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            root: root.into(),
            ..State::default()
        });
        let server = Self {
            endpoint: endpoint.clone(),
            state: state.clone(),
        };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who asks may hang up at any time.
                let _ = state.answer(&stream, &endpoint);
            }
        });
        server
    }

    pub(crate) fn fail_next(&self, faults: &[Fault]) {
        self.state.faults.lock().unwrap().extend(faults);
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.state.log.lock().unwrap().clone()
    }
}

impl State {
    fn answer(&self, stream: &TcpStream, endpoint: &str) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        let request = lines.next().unwrap_or(Ok(String::new()))?;
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut range = None;
        for line in lines {
            let line = line?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("range: bytes=") {
                range = Some(value.to_owned());
            }
        }
        let entry = range.as_ref().map(|range| format!(" {range}"));
        let entry = format!("{path}{}", entry.unwrap_or_default());
        self.log.lock().unwrap().push(entry);
        self.route(stream, &path, range.as_deref(), endpoint)
    }

    fn route(
        &self,
        stream: &TcpStream,
        path: &str,
        range: Option<&str>,
        endpoint: &str,
    ) -> std::io::Result<()> {
        if let Some(repo) = path.strip_prefix("/api/datasets/") {
            let repo = repo.split("/revision/").next().unwrap_or_default();
            return self.list(stream, repo);
        }
        let (file, is_cdn) = match path.strip_prefix("/cdn/") {
            Some(file) => (Some(file.to_owned()), true),
            None => (resolved(path), false),
        };
        let Some(bytes) = file
            .as_ref()
            .and_then(|file| fs::read(self.root.join(file)).ok())
        else {
            return reply(stream, "404 Not Found", "", b"");
        };
        // Packed and binary files are large files of git, which another host serves.
        let is_large = !path.ends_with("jsonl");
        if is_large && !is_cdn {
            let headers = format!(
                "x-repo-commit: {REVISION}\r\nx-linked-etag: \"{}\"\r\nlocation: {endpoint}/cdn/{}\r\n",
                hex(&Sha256::digest(&bytes)),
                file.unwrap_or_default(),
            );
            return reply(stream, "302 Found", &headers, b"");
        }
        let prefix = format!("blob {}\0", bytes.len());
        let etag = hex(&Sha1::new_with_prefix(prefix)
            .chain_update(&bytes)
            .finalize());
        let headers = format!("x-repo-commit: {REVISION}\r\netag: \"{etag}\"\r\n");
        let (start, end) = range
            .and_then(|range| range.split_once('-'))
            .unwrap_or(("0", ""));
        let start: usize = start.parse().unwrap_or(0);
        if start >= bytes.len() {
            return reply(stream, "416 Range Not Satisfiable", &headers, b"");
        }
        let end = end.parse().map_or(bytes.len(), |end: usize| end + 1);
        let is_content = end == bytes.len();
        let headers = format!(
            "{headers}content-range: bytes {start}-{}/{}\r\n",
            end - 1,
            bytes.len()
        );
        let body = &bytes[start..end];
        let fault = if is_content {
            self.faults.lock().unwrap().pop_front()
        } else {
            None
        };
        match fault {
            None => reply(stream, "206 Partial Content", &headers, body),
            Some(Fault::Status(status)) => reply(stream, &format!("{status} Fault"), "", b""),
            Some(Fault::Garbled) => {
                let garbled: Vec<u8> = body.iter().map(|byte| !byte).collect();
                reply(stream, "206 Partial Content", &headers, &garbled)
            }
            Some(Fault::Cut(len)) => {
                let head = head("206 Partial Content", &headers, body.len());
                let mut stream = stream;
                stream.write_all(head.as_bytes())?;
                stream.write_all(&body[..len])
            }
        }
    }

    fn list(&self, stream: &TcpStream, repo: &str) -> std::io::Result<()> {
        let folder = self.root.join(repo);
        if !folder.is_dir() {
            return reply(stream, "404 Not Found", "", b"");
        }
        let mut files = Vec::new();
        files_below(&folder, "", &mut files);
        let siblings: Vec<_> = files
            .iter()
            .map(|file| serde_json::json!({ "rfilename": file }))
            .collect();
        let body = serde_json::json!({"id": repo, "sha": REVISION, "siblings": siblings});
        let body = body.to_string();
        reply(
            stream,
            "200 OK",
            "content-type: application/json\r\n",
            body.as_bytes(),
        )
    }
}

/// The file in the folders of this hub that a path of the hub stands for.
fn resolved(path: &str) -> Option<String> {
    let (repo, file) = path.strip_prefix("/datasets/")?.split_once("/resolve/")?;
    let (_, file) = file.split_once('/')?;
    Some(format!("{repo}/{file}"))
}

fn files_below(folder: &Path, prefix: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            files_below(&entry.path(), &format!("{name}/"), files);
        } else {
            files.push(name);
        }
    }
}

fn head(status: &str, headers: &str, len: usize) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {len}\r\nconnection: close\r\n\r\n")
}

fn reply(mut stream: &TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    stream.write_all(head(status, headers, body.len()).as_bytes())?;
    stream.write_all(body)?;
    // Closing with unread bytes would throw away the answer.
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.take(1 << 16).read_to_end(&mut Vec::new())?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
