//! Rewards that a program gives.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, Command as Program, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Answered, Reward, RewardConfig, RewardError};

/// How often it is looked whether a program that says no more has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// What a program is told about an answer.
#[derive(Serialize)]
struct Sample<'a> {
    /// The turns before the answer.
    prompt: &'a [dataset::Message],
    /// The answer, thoughts included.
    completion: &'a str,
    /// The row's answer.
    answer: &'a str,
}

impl<'a> Sample<'a> {
    fn of(answer: &Answered<'a>) -> Self {
        Self {
            prompt: answer.prompt,
            completion: answer.text,
            answer: answer.expected,
        }
    }
}

/// A program that is started once per rollout.
pub(super) struct Command {
    name: String,
    words: Vec<String>,
    timeout_secs: f64,
}

impl Command {
    pub(super) fn new(config: &RewardConfig) -> Self {
        Self {
            name: config.name(),
            words: config.command.clone(),
            timeout_secs: config.timeout_secs,
        }
    }

    fn cannot_run(&self, source: io::Error) -> RewardError {
        RewardError::Start {
            name: self.name.clone(),
            program: self.words[0].clone().into(),
            source,
        }
    }

    /// What the program writes, once it has ended well and in time.
    fn output(&self, input: String) -> Result<String, RewardError> {
        let mut child = Program::new(&self.words[0])
            .args(&self.words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| self.cannot_run(source))?;
        let deadline = Instant::now() + Duration::from_secs_f64(self.timeout_secs);
        let left = || deadline.saturating_duration_since(Instant::now());
        let stdin = child.stdin.take();
        // Writing, both ways of reading and the clock: a pipe that nobody empties would stop any two.
        // What the program has started may hold the pipes after its end; their threads end with it.
        thread::spawn(move || write_all(stdin, &input));
        let output = read_aside(child.stdout.take());
        let complaint = read_aside(child.stderr.take());
        let output = output.recv_timeout(left());
        let status = match &output {
            Ok(_) => wait(&mut child, deadline).map_err(|source| self.cannot_run(source))?,
            Err(_) => None,
        };
        let Some(status) = status else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(self.too_late());
        };
        if !status.success() {
            let stderr = complaint.recv_timeout(left()).unwrap_or_default();
            return Err(RewardError::Failed {
                name: self.name.clone(),
                status,
                stderr: stderr.trim().to_owned(),
            });
        }
        Ok(output.unwrap_or_default())
    }

    fn too_late(&self) -> RewardError {
        RewardError::TimedOut {
            name: self.name.clone(),
            timeout_secs: self.timeout_secs,
        }
    }
}

impl Reward for Command {
    fn judge(&mut self, answers: &[Answered<'_>]) -> Result<Vec<f64>, RewardError> {
        let mut input = String::new();
        for answer in answers {
            let line = serde_json::to_string(&Sample::of(answer));
            input.push_str(&line.expect("turns and texts are JSON"));
            input.push('\n');
        }
        let output = self.output(input)?;
        let lines = output.lines().filter(|line| !line.trim().is_empty());
        let numbers = lines.enumerate().map(|(index, line)| {
            line.trim().parse().map_err(|_| RewardError::NotANumber {
                name: self.name.clone(),
                answer: index + 1,
                found: line.to_owned(),
            })
        });
        numbers.collect()
    }
}

fn write_all(stdin: Option<ChildStdin>, input: &str) {
    if let Some(mut stdin) = stdin {
        // A program may end without reading everything; what it wrote is judged.
        let _ = stdin.write_all(input.as_bytes());
    }
}

/// All that comes out of a pipe, once it is closed.
fn read_aside(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What a broken pipe delivered counts; too little of it is noticed by its count.
            let _ = pipe.read_to_end(&mut bytes);
        }
        // Nobody listens any more once the time is up.
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// How a program ended; `None` if it has not by then.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() >= deadline {
            return Ok(status);
        }
        thread::sleep(POLL_INTERVAL);
    }
}
