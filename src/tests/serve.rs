//! The server as its clients see it: real requests over a loopback port, to a model of random
//! weights.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::fixture::{fails, succeeds};
use crate::server::{KEY, Server};

fn chat(text: &str, more: &Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": text}], "max_tokens": 20});
    let fields = body.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    body
}

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";
const EMBED: &str = "/v1/embeddings";

/// Each field of the answer as OpenAI's reference has it, whole and streamed.
#[test]
fn a_streamed_answer_is_the_whole_answer_in_pieces() {
    let server = Server::start(&[]);
    let (status, whole) = server.post(CHAT, &chat("1+1=?", &json!({"seed": 5})));
    assert_eq!(status, 200, "{whole}");
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["model"], "tiny");
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    let usage = &whole["usage"];
    assert_eq!(
        usage["total_tokens"].as_u64().unwrap(),
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
    );

    let more = json!({"seed": 5, "stream": true, "stream_options": {"include_usage": true}});
    let chunks = server.stream(CHAT, &chat("1+1=?", &more));
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, choice["message"]["content"]);
    let last = &chunks[chunks.len() - 1];
    assert_eq!((&last["usage"], &last["choices"]), (usage, &json!([])));
    let end = &chunks[chunks.len() - 2]["choices"][0];
    assert_eq!(end["finish_reason"], choice["finish_reason"]);
}

/// Eight clients at once, each with a seed of its own, against the same requests one by one.
#[test]
fn clients_do_not_disturb_each_other() {
    let server = Server::start(&["--max-batch", "3"]);
    let ask = |seed: usize| {
        let text = "abc ".repeat(1 + 5 * seed);
        let (status, answer) = server.post(CHAT, &chat(&text, &json!({"seed": seed})));
        assert_eq!(status, 200, "{answer}");
        answer["choices"][0]["message"]["content"].clone()
    };
    let together: Vec<Value> = thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|seed| scope.spawn(move || ask(seed))).collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    let alone: Vec<Value> = (0..8).map(ask).collect();
    assert_eq!(together, alone);

    let (_, page) = server.request("GET", "/metrics", "");
    assert!(page.contains("\nkindling_requests_total 16\n"), "{page}");
    assert!(page.contains("\nkindling_requests_waiting 0\n"), "{page}");
}

/// What lm-eval reads: four lists with an entry per token, and what a token was given when it was
/// written is what the same token is given when it is read.
#[test]
fn echoed_prompts_are_scored() {
    let server = Server::start(&[]);
    let body = json!({"prompt": [[5, 6, 7], [40]], "max_tokens": 3, "temperature": 0,
        "logprobs": 1, "echo": true});
    let (status, scored) = server.post(TEXT, &body);
    assert_eq!(status, 200, "{scored}");
    for (choice, len) in scored["choices"].as_array().unwrap().iter().zip([6, 4]) {
        let lists = choice["logprobs"].as_object().unwrap();
        assert!(
            lists
                .values()
                .all(|list| list.as_array().unwrap().len() == len)
        );
        assert_eq!(lists["token_logprobs"][0], Value::Null);
        let written = &lists["token_logprobs"][len - 1];
        let likeliest = lists["top_logprobs"][len - 1].as_object().unwrap();
        assert_eq!(likeliest.values().next(), Some(written));
    }
    let (_, hidden) = server.post(
        TEXT,
        &json!({"prompt": [5, 6, 7], "max_tokens": 0,
        "logprobs": 1, "echo": true}),
    );
    assert_eq!(hidden["usage"]["completion_tokens"], 0);
    let (hidden, scored) = (&hidden["choices"][0], &scored["choices"][0]);
    let scores =
        |choice: &Value| choice["logprobs"]["token_logprobs"].as_array().unwrap()[..3].to_vec();
    assert_eq!(scores(hidden), scores(scored));
}

/// Two choices with logprobs, a JSON object, a bias that leaves one token.
#[test]
fn the_fields_of_a_request_do_what_they_say() {
    let server = Server::start(&[]);
    let more = json!({"n": 2, "logprobs": true, "top_logprobs": 3, "max_tokens": 4,
        "logit_bias": {"2": -100}});
    let (_, answer) = server.post(CHAT, &chat("a", &more));
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 2);
    for choice in choices {
        assert_eq!(choice["finish_reason"], "length");
        let tokens = choice["logprobs"]["content"].as_array().unwrap();
        assert_eq!(tokens.len(), 4);
        assert_eq!(tokens[0]["top_logprobs"].as_array().unwrap().len(), 3);
    }
    assert_eq!(answer["usage"]["completion_tokens"], 8);

    let more = json!({"response_format": {"type": "json_object"}});
    let (_, answer) = server.post(CHAT, &chat("a", &more));
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.trim_start().starts_with('{'), "{text}");

    let (_, answer) = server.post(
        TEXT,
        &json!({"prompt": "a", "max_tokens": 3,
        "logit_bias": {"9": 100}, "temperature": 0, "logprobs": 0}),
    );
    let tokens = answer["choices"][0]["logprobs"]["tokens"]
        .as_array()
        .unwrap();
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
}

/// As long as the model is wide (64 in configs/model/debug.json), and in base64 the same bits.
#[test]
fn embeddings_are_the_same_in_both_encodings() {
    let server = Server::start(&[]);
    let embeddings = |more: &Value| -> Vec<Value> {
        let mut body = json!({"input": ["a", "b"]});
        let fields = body.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        let (status, answer) = server.post("/v1/embeddings", &body);
        assert_eq!(status, 200, "{answer}");
        let data = answer["data"].as_array().unwrap().iter();
        data.map(|row| row["embedding"].clone()).collect()
    };
    let floats: Vec<Vec<u8>> = embeddings(&json!({}))
        .iter()
        .map(|embedding| {
            let numbers = embedding.as_array().unwrap().iter();
            let numbers = numbers.map(|number| number.as_f64().unwrap() as f32);
            numbers.flat_map(f32::to_le_bytes).collect()
        })
        .collect();
    let packed: Vec<Vec<u8>> = embeddings(&json!({"encoding_format": "base64"}))
        .iter()
        .map(|embedding| STANDARD.decode(embedding.as_str().unwrap()).unwrap())
        .collect();
    assert_eq!(floats, packed);
    assert_eq!(floats[0].len(), 64 * 4);
    assert_ne!(floats[0], floats[1]);
}

/// Without a seed no two answers of a request are drawn alike; with one they depend on it alone.
#[test]
fn equal_prompts_are_drawn_apart_unless_a_seed_is_given() {
    let server = Server::start(&[]);
    let texts = |seed: &Value| {
        let body = json!({"prompt": ["a", "a"], "max_tokens": 20, "temperature": 1, "top_p": 1,
            "top_k": 0, "seed": seed, "logit_bias": {"2": -100}});
        let (status, answer) = server.post(TEXT, &body);
        assert_eq!(status, 200, "{answer}");
        [0, 1].map(|index| answer["choices"][index]["text"].clone())
    };
    let [first, second] = texts(&Value::Null);
    assert_ne!(first, second);
    let [first, second] = texts(&json!(5));
    assert_eq!(first, second);
}

/// Status, and the message in OpenAI's shape.
#[test]
fn what_cannot_be_answered_is_refused_in_openai_shape() {
    let server = Server::start(&["--api-key", "KINDLING_TEST_KEY", "--max-queue", "8"]);
    let long = "word ".repeat(2000);
    for (path, body, status, message) in [
        (CHAT, json!({}), 400, "missing field `messages`"),
        (CHAT, json!({"messages": []}), 400, "found no messages"),
        (
            CHAT,
            chat("a", &json!({"model": "gpt"})),
            404,
            "expected one of tiny",
        ),
        (CHAT, chat("a", &json!({"top_p": 2})), 400, "top_p is 2"),
        (
            CHAT,
            chat("a", &json!({"n": 0})),
            400,
            "found 0, expected from 1",
        ),
        (
            CHAT,
            chat("a", &json!({"max_tokens": 0})),
            400,
            "max_new_tokens is 0",
        ),
        (
            CHAT,
            chat(&long, &json!({})),
            400,
            "expected fewer than the model's context",
        ),
        (
            CHAT,
            json!({"messages": [{"role": "judge", "content": ""}]}),
            400,
            "found `judge`",
        ),
        (
            TEXT,
            json!({"prompt": ["a", "b", "c"], "n": 3}),
            400,
            "found 9 answers to one request, expected at most the server's --max-queue 8",
        ),
        (
            EMBED,
            json!({"input": vec!["a"; 1025]}),
            400,
            "from 1 to 1024",
        ),
        (TEXT, json!({"prompt": ""}), 400, "the prompt is empty"),
        (TEXT, json!({"prompt": [99999]}), 400, "token id 99999"),
        ("/v2", json!({}), 404, "no such address: /v2"),
        ("/health", json!({}), 405, "another method"),
    ] {
        let (found, answer) = server.post(path, &body);
        assert_eq!(found, status, "{path} {answer}");
        let error = &answer["error"];
        assert!(
            error["message"].as_str().unwrap().contains(message),
            "{answer}"
        );
        assert_eq!(error["type"], "invalid_request_error");
    }
    for (path, field, body) in [
        (CHAT, "messages", chat(&long, &json!({}))),
        (TEXT, "prompt", json!({"prompt": long})),
        (EMBED, "input", json!({"input": ["a", long]})),
        (EMBED, "input", json!({"input": [99999]})),
    ] {
        let (status, answer) = server.post(path, &body);
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(field)));
    }
    let (status, _) = server.request("POST", CHAT, &"x".repeat(9 << 20));
    assert_eq!(status, 413);

    let mut stream = TcpStream::connect(&server.address).unwrap();
    write!(
        stream,
        "GET /v1/models HTTP/1.0\r\nAuthorization: Bearer a-kez\r\n\r\n"
    )
    .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 401"), "{response}");
    assert!(response.contains("invalid_api_key"), "{response}");
}

/// One row and one place to wait: of many that come at once some are told to come again.
#[test]
fn a_full_queue_refuses() {
    let server = Server::start(&["--max-batch", "1", "--max-queue", "1"]);
    let long = chat("a", &json!({"max_tokens": 480, "logit_bias": {"2": -100}})).to_string();
    // The server may read them in any order.
    let clients: Vec<TcpStream> = (0..20).map(|_| server.send("POST", CHAT, &long)).collect();
    let response = clients.into_iter().rev().find_map(|mut client| {
        let mut response = String::new();
        client.read_to_string(&mut response).unwrap();
        response.starts_with("HTTP/1.1 429 ").then_some(response)
    });
    let response = response.expect("a client is refused");
    assert!(response.contains("Retry-After: 1") && response.contains("rate_limit_error"));
}

/// A client asks for 64 long answers, one after another in a row that never rests, and goes away:
/// the next one is served long before they could all be written.
#[test]
fn clients_that_go_away_make_room() {
    let server = Server::start(&["--max-batch", "1", "--max-queue", "64"]);
    let more = json!({"n": 64, "max_tokens": 480, "logit_bias": {"2": -100}});
    drop(server.send("POST", CHAT, &chat("a", &more).to_string()));
    let count = |name: &str| -> u64 {
        let (_, page) = server.request("GET", "/metrics", "");
        let line = page.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split(' ').nth(1));
        number.unwrap().parse().unwrap()
    };
    let soon = |is_so: &dyn Fn() -> bool| {
        let looks = 0..6000;
        let mut looks = looks.map(|_| thread::sleep(Duration::from_millis(10)));
        assert!(looks.any(|()| is_so()));
    };
    soon(&|| count("kindling_requests_total") == 64);
    soon(&|| server.post(CHAT, &chat("d", &json!({"max_tokens": 1}))).0 == 200);
    let num_written = count("kindling_generated_tokens_total");
    assert!(num_written < 64 * 480 / 2, "{num_written}");
}

/// A stream that is on its way when SIGTERM comes is heard to its end.
#[test]
fn the_server_finishes_its_answers_before_it_stops() {
    let mut server = Server::start(&[]);
    let body = chat(
        "a",
        &json!({"max_tokens": 100, "stream": true, "logit_bias": {"2": -100}}),
    );
    let mut stream = server.send("POST", CHAT, &body.to_string());
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    let rest = thread::spawn(move || {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        rest
    });
    assert_eq!(server.stop(), Some(0));
    assert!(rest.join().unwrap().contains("data: [DONE]"));
    let mut messages = String::new();
    server.messages.read_to_string(&mut messages).unwrap();
    assert!(messages.ends_with("stopped\n"), "{messages}");
}

/// The terminal chat of a server's model writes what the API answers, and says what is wrong.
#[test]
fn the_terminal_chat_talks_to_a_server() {
    let server = Server::start(&["--api-key", "KINDLING_TEST_KEY"]);
    let url = format!("http://{}", server.address);
    let talk = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kindling"));
        command.args(["chat", "--url", &url, "--prompt", "1+1=?"]);
        command.args(["--max-new-tokens", "20", "--seed", "5"]);
        command.args(flags).env("KINDLING_TEST_KEY", KEY);
        command
    };
    let (_, answer) = server.post(CHAT, &chat("1+1=?", &json!({"seed": 5})));
    let expected = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let key = ["--api-key", "KINDLING_TEST_KEY"];
    let output = succeeds(talk(&key));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{expected}\n")
    );

    let message = fails(talk(&[]));
    assert!(
        message.contains("401: the API key is missing or wrong"),
        "{message}"
    );
    let message = fails(talk(&[key[0], key[1], "--model", "gpt"]));
    assert!(
        message.contains("the model `gpt` does not exist, expected one of tiny"),
        "{message}"
    );
}
