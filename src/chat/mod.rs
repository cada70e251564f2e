//! Terminal chat with a finished model, loaded or behind an address: one answer for `--prompt`, else
//! a conversation.

mod args;
mod command;
mod interrupt;
mod local;
pub(crate) mod model_folder;
mod partner;
mod remote;

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Error, Result, bail};
use eval::chat::{Conversation, Mode};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

pub use args::{ChatArgs, ModeChoice};

use crate::device::pick_device;
use crate::engine::load_engine;
use crate::identity::asker;
use command::Command;
use interrupt::Interrupt;
use local::LocalModel;
use partner::{Ending, Partner};
use remote::RemoteModel;

/// Talks to a model: the answers go to stdout, everything else to stderr.
///
/// # Errors
///
/// A model that is not there or broken, a setting outside its range, a prompt that does not fit, or
/// an interrupted one-shot answer.
pub fn run(args: &ChatArgs) -> Result<()> {
    if let Some(url) = &args.url {
        return talk(args, &mut RemoteModel::new(url, args)?);
    }
    let device = pick_device(&args.device)?;
    let dir = match &args.model {
        Some(dir) => dir.clone(),
        None => model_folder::newest(Path::new("out"))?,
    };
    let template = args.chat_template.as_deref();
    let engine = load_engine(&dir, template, &args.adapters, args.weights, &device)?;
    let config = args.answer_config(&engine.defaults);
    config.generate.validate()?;
    let mode = match args.mode {
        ModeChoice::Auto => Mode::of(&engine),
        ModeChoice::Chat => Mode::Chat,
        ModeChoice::Continue => Mode::Continue,
    };
    let num_params = engine.model.config().num_params();
    eprintln!("{} ({num_params} parameters): {mode}", dir.display());

    let asker = asker(&engine, args.identity)?;
    let conversation = Conversation::new(&engine, mode, args.system.clone(), args.history)?;
    let conversation = conversation.asked_by(asker.map(|asker| asker.token));
    let mut model = LocalModel {
        engine: &engine,
        conversation,
        config,
        next_seed: args.seed,
    };
    talk(args, &mut model)
}

fn talk(args: &ChatArgs, partner: &mut dyn Partner) -> Result<()> {
    let mut chat = Chat {
        partner,
        show_speed: args.show_speed,
        interrupt: Interrupt::new(),
    };
    let outcome = match &args.prompt {
        Some(prompt) => chat.answer_once(prompt),
        None => chat.converse(),
    };
    match outcome {
        // Whoever reads the answers has heard enough.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        outcome => outcome,
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// One run of the command.
struct Chat<'a> {
    partner: &'a mut dyn Partner,
    show_speed: bool,
    interrupt: Interrupt,
}

impl Chat<'_> {
    fn answer_once(&mut self, prompt: &str) -> Result<()> {
        self.interrupt.install()?;
        let mut text = prompt.to_owned();
        if prompt == "-" {
            text.clear();
            io::stdin()
                .read_to_string(&mut text)
                .context("the prompt on stdin is not text")?;
            let without_line_end = text.trim_end_matches(['\r', '\n']).len();
            text.truncate(without_line_end);
        }
        if self.answer(&text)?.is_interrupted {
            bail!("interrupted");
        }
        Ok(())
    }

    fn converse(&mut self) -> Result<()> {
        eprintln!("/help lists the commands, Ctrl-C ends an answer, Ctrl-D leaves");
        let mut editor = DefaultEditor::new().context("the terminal cannot be read")?;
        // After the editor, which takes SIGINT for as long as it lives and does nothing with it
        // while no line is read.
        self.interrupt.install()?;
        loop {
            let line = match editor.readline("> ") {
                Ok(line) => line,
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => return Ok(()),
                Err(error) => return Err(error).context("the terminal cannot be read"),
            };
            if line.trim().is_empty() {
                continue;
            }
            // A line that cannot be remembered can still be answered.
            let _ = editor.add_history_entry(&line);
            match Command::parse(&line) {
                Command::Say(text) => {
                    if let Err(error) = self.answer(&text) {
                        if is_broken_pipe(&error) {
                            return Err(error);
                        }
                        eprintln!("{error:#}");
                    }
                }
                Command::System(text) => match self.partner.set_system(text) {
                    Ok(()) => eprintln!("a new conversation with this system prompt"),
                    Err(error) => eprintln!("{error:#}"),
                },
                Command::Reset => {
                    self.partner.reset();
                    eprintln!("a new conversation");
                }
                Command::Help => eprintln!("{}", command::HELP),
                Command::Unknown(name) => eprintln!("{name}: no such command, /help lists them"),
                Command::Exit => return Ok(()),
            }
        }
    }

    /// Writes the answer to stdout as it comes.
    fn answer(&mut self, text: &str) -> Result<Ending> {
        let started = Instant::now();
        let mut out = io::stdout().lock();
        let interrupt = &self.interrupt;
        let mut take = |piece: &str| {
            out.write_all(piece.as_bytes())?;
            out.flush()?;
            Ok(!interrupt.is_requested())
        };
        interrupt.answer_begins();
        let ending = self.partner.answer(text, &mut take);
        interrupt.answer_ends();
        let ending = ending?;
        writeln!(out)?;
        if self.show_speed {
            let secs = started.elapsed().as_secs_f64();
            let Ending {
                num_tokens, reason, ..
            } = &ending;
            let speed = *num_tokens as f64 / secs;
            eprintln!("[{num_tokens} tokens in {secs:.2} s, {speed:.1} tokens/s, {reason}]");
        }
        Ok(ending)
    }
}
