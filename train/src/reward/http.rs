//! Rewards that an endpoint gives.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answered, Reward, RewardConfig, RewardError};

/// An endpoint that is asked once per rollout.
pub(super) struct Endpoint {
    name: String,
    url: String,
    timeout_secs: f64,
    agent: ureq::Agent,
}

#[derive(Deserialize)]
struct Reply {
    rewards: Vec<Value>,
}

impl Endpoint {
    pub(super) fn new(config: &RewardConfig) -> Self {
        let timeout = Duration::from_secs_f64(config.timeout_secs);
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .build();
        Self {
            name: config.name(),
            url: config.url.clone(),
            timeout_secs: config.timeout_secs,
            agent: agent.into(),
        }
    }

    fn ask(&self, answers: &[Answered<'_>]) -> Result<Reply, ureq::Error> {
        let all = |field: fn(&Answered<'_>) -> Value| -> Vec<Value> {
            answers.iter().map(field).collect()
        };
        let body = json!({
            "prompts": all(|answer| json!(answer.prompt)),
            "completions": all(|answer| json!(answer.text)),
            "answers": all(|answer| json!(answer.expected)),
        });
        let mut reply = self.agent.post(&self.url).send_json(body)?;
        reply.body_mut().read_json()
    }
}

impl Reward for Endpoint {
    fn judge(&mut self, answers: &[Answered<'_>]) -> Result<Vec<f64>, RewardError> {
        let reply = self.ask(answers).map_err(|error| match error {
            ureq::Error::Timeout(_) => RewardError::TimedOut {
                name: self.name.clone(),
                timeout_secs: self.timeout_secs,
            },
            error => RewardError::Endpoint {
                name: self.name.clone(),
                url: self.url.clone(),
                source: Box::new(error),
            },
        })?;
        let numbers = reply.rewards.iter().enumerate().map(|(index, reward)| {
            reward.as_f64().ok_or_else(|| RewardError::NotANumber {
                name: self.name.clone(),
                answer: index + 1,
                found: reward.to_string(),
            })
        });
        numbers.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;
    use std::thread::JoinHandle;

    use dataset::Message;

    use super::super::RewardKind;
    use super::*;

    /// What an endpoint was sent, and the connections that it holds open.
    type Served = JoinHandle<(Vec<String>, Vec<TcpStream>)>;

    /// An endpoint that answers one request per status line and body, and tells what it was sent;
    /// where there is nothing to say it keeps the connection open and silent.
    fn endpoint(replies: Vec<(&'static str, &'static str)>) -> (String, Served) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/judge", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut requests, mut silent) = (Vec::new(), Vec::new());
            for (status, body) in replies {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(&stream);
                let (mut line, mut length) = (String::new(), 0);
                while reader.read_line(&mut line).unwrap() > 2 {
                    if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut request = vec![0; length];
                reader.read_exact(&mut request).unwrap();
                requests.push(String::from_utf8(request).unwrap());
                if status.is_empty() {
                    silent.push(stream);
                    continue;
                }
                let len = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n\
                     content-length: {len}\r\n\r\n{body}"
                )
                .unwrap();
            }
            (requests, silent)
        });
        (url, server)
    }

    fn ask(url: &str, answers: &[Answered<'_>]) -> Result<Vec<f64>, RewardError> {
        let config = RewardConfig {
            url: url.to_owned(),
            timeout_secs: 0.5,
            ..RewardConfig::new(RewardKind::Http)
        };
        Endpoint::new(&config).judge(answers)
    }

    fn answered<'a>(prompt: &'a [Message], text: &'a str) -> Answered<'a> {
        Answered {
            prompt,
            expected: "5",
            other: "",
            prompt_ids: &[1],
            completion_ids: &[2],
            text,
        }
    }

    /// The whole rollout is one request of three lists, its reply one number per answer.
    #[test]
    fn a_rollout_is_one_request() {
        let (url, server) = endpoint(vec![("200 OK", r#"{"rewards": [1, -0.5]}"#)]);
        let prompt = [Message::new("user", "2+3=?")];
        let answers = [answered(&prompt, "5"), answered(&prompt, "<think>6")];
        assert_eq!(ask(&url, &answers).unwrap(), [1.0, -0.5]);
        let (requests, _) = server.join().unwrap();
        let sent: Value = serde_json::from_str(&requests[0]).unwrap();
        let turns = json!([{"role": "user", "content": "2+3=?"}]);
        let expected = json!({
            "prompts": [turns, turns],
            "completions": ["5", "<think>6"],
            "answers": ["5", "5"],
        });
        assert_eq!(sent, expected);
    }

    /// What comes late, broken or not at all is an error that says so, never a number.
    #[test]
    fn an_endpoint_that_cannot_judge_is_an_error() {
        let (url, _server) = endpoint(vec![
            ("200 OK", r#"{"rewards": [1, null]}"#),
            ("200 OK", r#"{"scores": [1, 2]}"#),
            ("500 Internal Server Error", "{}"),
            ("", ""),
        ]);
        let answers = [answered(&[], "5"), answered(&[], "6")];
        let mut refusals = (0..4).map(|_| {
            let error = ask(&url, &answers).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            (error.to_string(), source.unwrap_or_default())
        });
        assert_eq!(
            refusals.next().unwrap().0,
            "reward http: found \"null\" for answer 2, expected a finite number"
        );
        let (error, source) = refusals.next().unwrap();
        assert_eq!(error, format!("reward http: {url} gave no rewards"));
        assert!(source.contains("missing field `rewards`"), "{source}");
        let (error, source) = refusals.next().unwrap();
        assert_eq!(error, format!("reward http: {url} gave no rewards"));
        assert!(source.contains("500"), "{source}");
        assert_eq!(
            refusals.next().unwrap().0,
            "reward http: no answer within 0.5 s"
        );
        let nobody = "http://127.0.0.1:1/";
        assert_eq!(
            ask(nobody, &answers).unwrap_err().to_string(),
            "reward http: http://127.0.0.1:1/ gave no rewards"
        );
    }
}
