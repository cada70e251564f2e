//! An endpoint that misbehaves on purpose, over a loopback port.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::completer::{
    Ask, Completer, Completion, CompletionRequest, Fault, Finish, FirstToken, Sampling,
};
use super::endpoint::{Api, EndpointSection};
use super::http::Endpoint;
use crate::chat::Message;

/// What the mock does with a request.
enum Reply {
    /// Status, further headers and body.
    Full(u16, &'static str, String),
    /// A body that is shorter than it says.
    Half,
    /// The connection is closed without a word.
    Nothing,
    /// An answer that comes too late.
    Late,
}

type Script = fn(attempt: usize, path: &str, body: &Value) -> Reply;

/// What was asked: path, authorization and body, in the order of arrival.
type Log = Arc<Mutex<Vec<(String, String, Value)>>>;

fn start(script: Script) -> (EndpointSection, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let log = Log::default();
    let seen = Arc::clone(&log);
    // The thread ends with the test process.
    thread::spawn(move || {
        let attempts = Arc::new(Mutex::new(BTreeMap::new()));
        for stream in listener.incoming() {
            let (seen, attempts) = (Arc::clone(&seen), Arc::clone(&attempts));
            thread::spawn(move || serve(stream.unwrap(), script, &seen, &attempts));
        }
    });
    let section = EndpointSection {
        url,
        model: "mock".to_owned(),
        concurrency: 4,
        timeout_secs: 0.5,
        max_retries: 3,
        backoff_secs: 0.01,
        ..EndpointSection::default()
    };
    (section, log)
}

fn serve(stream: TcpStream, script: Script, log: &Log, attempts: &Mutex<BTreeMap<String, usize>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let (mut head, mut line) = (Vec::new(), String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        let header = |name: &str| {
            let found = head.iter().find_map(|line| {
                let (key, value) = line.split_once(": ")?;
                key.eq_ignore_ascii_case(name).then(|| value.to_owned())
            });
            found.unwrap_or_default()
        };
        let mut body = vec![0; header("content-length").parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let path = head[0].split(' ').nth(1).unwrap().to_owned();
        log.lock()
            .unwrap()
            .push((path.clone(), header("authorization"), body.clone()));
        let attempt = {
            let mut attempts = attempts.lock().unwrap();
            let count = attempts.entry(body["seed"].to_string()).or_insert(0);
            *count += 1;
            *count
        };
        match script(attempt, &path, &body) {
            Reply::Nothing => return,
            Reply::Late => thread::sleep(Duration::from_secs(2)),
            Reply::Half => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"cho");
                return;
            }
            Reply::Full(status, headers, text) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n",
                    text.len()
                );
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(text.as_bytes()).unwrap();
            }
        }
    }
}

fn good(text: &str) -> Reply {
    let body = json!({
        "choices": [{ "text": text, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 5, "completion_tokens": 2 },
    });
    Reply::Full(200, "", body.to_string())
}

fn sampling() -> Sampling {
    Sampling {
        temperature: 0.7,
        top_p: 0.9,
        repetition_penalty: 1.0,
        max_tokens: 16,
        stop: vec!["<|im_end|>".to_owned()],
        first_token: FirstToken::Plain,
        as_json_object: false,
    }
}

fn questions(count: u64) -> Vec<CompletionRequest> {
    let request = |seed| CompletionRequest {
        ask: Ask::UserTurn(Vec::new()),
        seed,
    };
    (0..count).map(request).collect()
}

fn ask(
    section: &EndpointSection,
    requests: &[CompletionRequest],
) -> Result<Vec<Result<Completion, Fault>>, String> {
    let endpoint = Endpoint::new(section).unwrap();
    let answers = endpoint.complete(requests, &sampling());
    answers.map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    })
}

/// Every request meets a fault of its own first: too many requests, server errors, a body that is cut
/// off, one that is no JSON, none at all, silence. All are answered in the end, in order.
#[test]
fn what_passes_is_waited_for() {
    let (section, log) = start(|attempt, _, body| {
        let seed = body["seed"].as_u64().unwrap();
        match (attempt, seed) {
            (1, 0) => Reply::Full(429, "Retry-After: 0\r\n", "slow down".to_owned()),
            (1 | 2, 1) => Reply::Full(503, "", "busy".to_owned()),
            (1, 2) => Reply::Half,
            (1, 3) => Reply::Full(200, "", "<html>".to_owned()),
            (1, 4) => Reply::Nothing,
            (1, 5) => Reply::Late,
            (1, 6) => Reply::Full(200, "", "{\"choices\": []}".to_owned()),
            _ => good(&format!("question {seed}")),
        }
    });
    let answers = ask(&section, &questions(9)).unwrap();
    for (seed, answer) in answers.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!(answer.text, format!("question {seed}"));
        assert_eq!(answer.finish, Finish::Stop);
        assert_eq!(
            (answer.usage.prompt_tokens, answer.usage.completion_tokens),
            (5, 2)
        );
    }
    let log = log.lock().unwrap();
    assert_eq!(
        log.len(),
        9 + 8,
        "one attempt more for each fault, two for the second"
    );
    let (path, authorization, body) = &log[0];
    assert_eq!(
        (path.as_str(), authorization.as_str()),
        ("/v1/completions", "")
    );
    assert_eq!(
        (
            &body["prompt"],
            &body["stop"],
            &body["max_tokens"],
            &body["temperature"]
        ),
        (
            &json!("<|im_start|>user\n"),
            &json!(["<|im_end|>"]),
            &json!(16),
            &json!(0.7)
        )
    );
}

/// A server that says how long to wait is waited for that long.
#[test]
fn a_server_s_own_wait_is_kept() {
    let (section, _) = start(|attempt, _, _| match attempt {
        1 => Reply::Full(429, "Retry-After: 1\r\n", String::new()),
        _ => good("a"),
    });
    let start = Instant::now();
    ask(&section, &questions(1)).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

/// One request is refused, the others are answered.
#[test]
fn a_refused_request_does_not_end_the_step() {
    let (section, log) = start(|_, _, body| match body["seed"].as_u64() {
        Some(1) => Reply::Full(400, "", "{\"error\":  \"too long\"}".to_owned()),
        _ => good("a"),
    });
    let answers = ask(&section, &questions(3)).unwrap();
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert_eq!(
        answers[1].as_ref().unwrap_err().to_string(),
        "the endpoint refused with status 400: {\"error\": \"too long\"}"
    );
    assert_eq!(log.lock().unwrap().len(), 3, "a refusal is not asked again");
}

#[test]
fn what_does_not_pass_ends_the_step_with_its_reason() {
    let (section, log) = start(|_, _, _| Reply::Full(401, "", "who are you".to_owned()));
    let error = ask(&section, &questions(9)).unwrap_err();
    assert!(
        error.starts_with("completions broke off: http://127.0.0.1:"),
        "{error}"
    );
    assert!(
        error.ends_with("/v1/completions: status 401, expected 200: who are you"),
        "{error}"
    );
    assert!(log.lock().unwrap().len() < 9, "the rest is not asked");

    let (section, log) = start(|_, _, _| Reply::Full(500, "", String::new()));
    let error = ask(&section, &questions(1)).unwrap_err();
    assert!(
        error.contains("given up after 4 attempts: status 500"),
        "{error}"
    );
    assert_eq!(log.lock().unwrap().len(), 4);

    let nobody = EndpointSection {
        url: "http://127.0.0.1:1/v1".to_owned(),
        ..section
    };
    let error = ask(&nobody, &questions(1)).unwrap_err();
    assert!(error.contains("given up after 4 attempts: "), "{error}");
}

/// A chat endpoint answers, with its thoughts put before the answer, but cannot be asked to ask.
#[test]
fn a_chat_endpoint_answers_only() {
    let (section, log) = start(|_, _, body| {
        assert!(body.get("prompt").is_none());
        let body = json!({
            "choices": [{
                "message": { "content": "2", "reasoning_content": "1+1" },
                "finish_reason": "length",
            }],
        });
        Reply::Full(200, "", body.to_string())
    });
    let section = EndpointSection {
        api: Api::Chat,
        extra: "{\"top_k\": 20}".to_owned(),
        // Cargo sets it for every test.
        api_key_env: "CARGO_PKG_NAME".to_owned(),
        ..section
    };
    let request = CompletionRequest {
        ask: Ask::AssistantTurn(vec![Message::new("user", "1+1=")]),
        seed: 3,
    };
    let answers = ask(&section, &[request]).unwrap();
    let answer = answers[0].as_ref().unwrap();
    assert_eq!(answer.text, "<think>\n1+1\n</think>\n\n2");
    assert_eq!(answer.finish, Finish::Length);
    let (path, authorization, body) = log.lock().unwrap()[0].clone();
    assert_eq!(path, "/v1/chat/completions");
    assert_eq!(authorization, "Bearer kindling-dataset");
    assert_eq!(
        body["messages"],
        json!([{ "role": "user", "content": "1+1=" }])
    );
    assert_eq!(body["top_k"], 20);

    let error = ask(&section, &questions(1)).unwrap_err();
    assert!(
        error.starts_with("a chat endpoint cannot write a user's turn: "),
        "{error}"
    );
}

#[test]
fn wrong_settings_are_named() {
    let message = |section: EndpointSection| Endpoint::new(&section).unwrap_err().to_string();
    let good = EndpointSection::default();
    assert_eq!(
        message(EndpointSection {
            url: "localhost:8000".to_owned(),
            ..good.clone()
        }),
        "endpoint.url is localhost:8000, expected http:// or https:// and a host"
    );
    assert_eq!(
        message(EndpointSection {
            api_key_env: "KINDLING_NO_SUCH_KEY".to_owned(),
            ..good.clone()
        }),
        "endpoint.api_key_env is KINDLING_NO_SUCH_KEY, expected the name of a variable that is set \
         (it holds the API key)"
    );
    assert_eq!(
        message(EndpointSection {
            extra: "top_k=3".to_owned(),
            ..good
        }),
        "endpoint.extra is top_k=3, expected a JSON object"
    );
}
