//! What a line typed into the chat means.

/// What `/help` prints.
pub(super) const HELP: &str = "\
/help           this list
/reset          forget the conversation
/system TEXT    begin a new conversation with this system prompt; without TEXT, with none
/exit           leave, as Ctrl-D and Ctrl-C do
//TEXT          say a text that begins with a slash";

/// A line's meaning.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Say(String),
    System(Option<String>),
    Reset,
    Help,
    Unknown(String),
    Exit,
}

impl Command {
    /// Commands begin with a slash; every other line is said as it stands.
    pub(super) fn parse(line: &str) -> Self {
        let Some(command) = line.strip_prefix('/') else {
            return Self::Say(line.to_owned());
        };
        if command.starts_with('/') {
            return Self::Say(command.to_owned());
        }
        let (name, rest) = command
            .split_once(char::is_whitespace)
            .unwrap_or((command, ""));
        match name {
            "help" => Self::Help,
            "reset" => Self::Reset,
            "system" => {
                let text = rest.trim();
                Self::System((!text.is_empty()).then(|| text.to_owned()))
            }
            "exit" | "quit" => Self::Exit,
            _ => Self::Unknown(format!("/{name}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line of each kind.
    #[test]
    fn a_line_is_a_command_only_if_it_begins_with_a_slash() {
        let cases = [
            ("1 / 2?", Command::Say("1 / 2?".to_owned())),
            (" /exit", Command::Say(" /exit".to_owned())),
            ("//exit", Command::Say("/exit".to_owned())),
            ("/help", Command::Help),
            ("/reset ", Command::Reset),
            ("/system", Command::System(None)),
            (
                "/system  be brief ",
                Command::System(Some("be brief".to_owned())),
            ),
            ("/exit", Command::Exit),
            ("/exits", Command::Unknown("/exits".to_owned())),
        ];
        for (line, command) in cases {
            assert_eq!(Command::parse(line), command);
        }
    }
}
