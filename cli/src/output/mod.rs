//! What is printed: one envelope for programs, one view for people.

mod data;
mod envelope;
mod human;
mod table;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};

use hasteward_proto::failure::Failure;

pub use self::data::{AgentList, AgentRow, AgentState, Data, Man, Version};
pub use self::envelope::{Envelope, EnvelopeDocument, Warning};

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Human,
    /// One indented envelope.
    Json,
    /// One envelope a line.
    Jsonl,
    /// The envelope as YAML.
    Yaml,
}

impl Format {
    /// Human on a terminal, JSON otherwise.
    pub fn automatic() -> Self {
        if std::io::stdout().is_terminal() {
            Self::Human
        } else {
            Self::Json
        }
    }

    /// The form that a command line asks for which could not be parsed.
    pub fn of_arguments(arguments: &[OsString]) -> Self {
        let texts: Vec<&str> = arguments.iter().filter_map(|a| a.to_str()).collect();
        let flag = texts
            .windows(2)
            .find(|pair| pair[0] == "--output")
            .map(|pair| pair[1].to_owned());
        let joined = || {
            texts
                .iter()
                .find_map(|t| t.strip_prefix("--output="))
                .map(str::to_owned)
        };
        let wanted = flag
            .or_else(joined)
            .or_else(|| std::env::var("HASTEWARD_OUTPUT").ok());
        match wanted.as_deref() {
            Some("json") => Self::Json,
            Some("jsonl") => Self::Jsonl,
            Some("yaml") => Self::Yaml,
            Some("human") => Self::Human,
            _ => Self::automatic(),
        }
    }
}

/// What a command came to.
#[derive(Debug)]
pub struct Outcome {
    /// The answer.
    pub data: Data,
    /// What the user should know besides.
    pub warnings: Vec<Warning>,
    /// The exit code.
    pub exit_code: u8,
}

impl Outcome {
    /// An answer without anything to say besides, exit code 0.
    pub fn done(data: Data) -> Self {
        Self {
            data,
            warnings: Vec::new(),
            exit_code: 0,
        }
    }
}

/// Prints the outcome and returns the exit code.
pub fn finish(format: Format, envelope: Envelope, outcome: Result<Outcome, Failure>) -> u8 {
    if format == Format::Human {
        return match outcome {
            Ok(outcome) => {
                print(&human::render(&outcome));
                outcome.exit_code
            }
            Err(failure) => {
                anstream::eprint!("{}", human::failure(&failure));
                failure.kind.exit_code()
            }
        };
    }
    if let Ok(Outcome {
        data: Data::Schema(schema),
        ..
    }) = &outcome
    {
        print(&format!(
            "{}\n",
            serde_json::to_string_pretty(schema).unwrap_or_default()
        ));
        return 0;
    }
    let document = envelope.end(outcome);
    let text = match format {
        Format::Jsonl => serde_json::to_string(&document).map_err(|e| e.to_string()),
        Format::Yaml => serde_saphyr::to_string(&document).map_err(|e| e.to_string()),
        Format::Json | Format::Human => serde_json::to_string_pretty(&document).map_err(|e| e.to_string()),
    };
    match text {
        Ok(text) => {
            print(&format!("{}\n", text.trim_end()));
            document.exit_code
        }
        Err(error) => {
            anstream::eprintln!("error: the answer could not be written: {error}");
            1
        }
    }
}

fn print(text: &str) {
    // A reader that went away (`| head`) is not an error of ours.
    let _ = anstream::stdout().write_all(text.as_bytes());
}
