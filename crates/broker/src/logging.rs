//! Logs: events with fields, in the journal or on standard error, from our own code only.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::journal_log::JournalLog;

/// What can be written in the configuration.
pub const LEVELS: [(&str, Level); 4] = [
    ("error", Level(LevelFilter::ERROR)),
    ("warn", Level(LevelFilter::WARN)),
    ("info", Level(LevelFilter::INFO)),
    ("debug", Level(LevelFilter::DEBUG)),
];

/// What can be written in the configuration.
pub const FORMATS: [(&str, Format); 2] = [("text", Format::Text), ("json", Format::Json)];

/// What is logged, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The least important that is logged.
    pub level: Level,
    /// How it is written.
    pub format: Format,
}

/// The least important that is logged.
#[derive(Clone, Copy, Debug)]
pub struct Level(LevelFilter);

/// How a line is written.
#[derive(Clone, Copy, Debug, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Level {
    fn default() -> Self {
        Self(LevelFilter::INFO)
    }
}

/// Starts logging, once in a process: to the journal where `stream`, the value of `JOURNAL_STREAM`,
/// says that this is where standard error goes, and to standard error elsewhere.
///
/// # Errors
///
/// When logging has been started before.
pub fn start(options: Options, stream: Option<&str>) -> Result<(), TryInitError> {
    // Other crates are not heard at all: what they would say of a request may hold a secret.
    let ours = Targets::new().with_target("arcbroker", options.level.0);
    let registry = tracing_subscriber::registry();
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match options.format {
        Format::Json => registry.with(layer.json().with_filter(ours)).try_init(),
        Format::Text => match JournalLog::open(stream) {
            Some(journal) => registry.with(journal.with_filter(ours)).try_init(),
            None => registry.with(layer.with_filter(ours)).try_init(),
        },
    }
}
