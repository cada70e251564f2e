//! A running server of a tiny model with random weights, and the requests of its clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use burn::tensor::Device;
use model::{CausalLm, ModelConfig};
use serde_json::{Value, json};

use crate::fixture::Fixture;

pub(crate) const KEY: &str = "a-key";

/// A running server, stopped when the test ends.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: String,
    pub(crate) messages: BufReader<std::process::ChildStderr>,
    fixture: Fixture,
}

impl Server {
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_in(Fixture::new(), flags)
    }

    /// The same for a chat model that was, or was not, taught to tell who asks.
    pub(crate) fn start_chat(knows_identities: bool, flags: &[&str]) -> Self {
        let fixture = Fixture::new();
        std::fs::create_dir(fixture.path("tiny")).unwrap();
        let record = json!({"stage": "3-full_sft", "is_chat_tuned": true, "knows_identities": knows_identities});
        fixture.write("tiny/training.json", record.to_string());
        Self::start_in(fixture, flags)
    }

    /// Folder of the model that is served.
    pub(crate) fn model_dir(&self) -> PathBuf {
        self.fixture.path("tiny")
    }

    fn start_in(fixture: Fixture, flags: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut config = ModelConfig::load(&root.join("configs/model/debug.json")).unwrap();
        config.initializer_range = 0.2;
        let model = CausalLm::new(&config, 3, &Device::flex());
        let dir = fixture.path("tiny");
        model::hf::save_model(&model, &dir).unwrap();
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(fixture.path("tokenizer").join(name), dir.join(name)).unwrap();
        }
        let mut process = Command::new(env!("CARGO_BIN_EXE_kindling"))
            .args(["serve", "--port", "0", "--device", "cpu", "--model"])
            .arg(&dir)
            .args(flags)
            .env("KINDLING_TEST_KEY", KEY)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut messages = BufReader::new(process.stderr.take().unwrap());
        let mut address = String::new();
        while address.is_empty() {
            let mut line = String::new();
            assert!(messages.read_line(&mut line).unwrap() > 0, "no address");
            if let Some(found) = line.trim().strip_prefix("listening on http://") {
                found.clone_into(&mut address);
            }
        }
        Self {
            process,
            address,
            messages,
            fixture,
        }
    }

    /// Status and body.
    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = self.send(method, path, body);
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, unchunked(head, body))
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_mins(2)))
            .unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Authorization: Bearer {KEY}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        stream
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, body) = self.request("POST", path, &body.to_string());
        (status, serde_json::from_str(&body).unwrap_or(json!(body)))
    }

    /// The chunks of a stream that ends as it should.
    pub(crate) fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let (status, text) = self.request("POST", path, &body.to_string());
        assert_eq!(status, 200, "{text}");
        let mut events: Vec<&str> = text.split_terminator("\n\n").collect();
        assert_eq!(events.pop(), Some("data: [DONE]"));
        events
            .into_iter()
            .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
            .collect()
    }

    pub(crate) fn stop(&mut self) -> Option<i32> {
        let pid = self.process.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        self.process.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn unchunked(head: &str, body: &str) -> String {
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut rest, mut whole) = (body.as_bytes(), Vec::new());
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if len == 0 {
            return String::from_utf8(whole).unwrap();
        }
        whole.extend_from_slice(&rest[end + 2..end + 2 + len]);
        rest = &rest[end + 4 + len..];
    }
}
