//! What the process logs, and how that is changed while it runs. `app` starts it; `config` checks filters with it;
//! the admin server asks for changes. It knows only `tracing`, and none of its filters by span: those bring a regex
//! engine, half a MiB of resident memory.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

/// Longest filter that is read, in bytes.
pub const MAX_FILTER: usize = 4096;

/// A text that is no filter.
#[derive(Debug, thiserror::Error)]
pub enum BadFilter {
    #[error("it is empty: {REMEDY}")]
    Empty,
    #[error("it is longer than {MAX_FILTER} bytes: {REMEDY}")]
    TooLong,
    #[error("{0:?} is no level: {REMEDY}")]
    Level(String),
    #[error("{error} in {text:?}: {REMEDY}")]
    Syntax { text: String, error: String },
}

const REMEDY: &str = "give off, error, warn, info, debug or trace, or such levels by module as in \
                      info,weir_proxy::admin=debug";

/// Why a text of [`start`] is a filter.
const READ: &str = "`filter` has read it before";

/// Reads a filter in the syntax of `tracing`. Stricter than `tracing` itself in one thing: a word alone has to be a
/// level, where `tracing` would take a misspelled one for the name of a module.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn filter(text: &str) -> Result<Targets, BadFilter> {
    let text = text.trim();
    if text.is_empty() {
        return Err(BadFilter::Empty);
    }
    if text.len() > MAX_FILTER {
        return Err(BadFilter::TooLong);
    }
    for directive in text.split(',').map(str::trim) {
        let (_, level) = directive.rsplit_once('=').unwrap_or(("", directive));
        let is_known = !level.is_empty() && level.parse::<LevelFilter>().is_ok();
        if !is_known {
            return Err(BadFilter::Level(directive.to_owned()));
        }
    }
    text.parse().map_err(|error| BadFilter::Syntax {
        text: text.to_owned(),
        error: format!("{error}"),
    })
}

/// The filter in force; clones are the same one.
#[derive(Clone, Debug)]
pub struct Levels(Handle<Targets, Registry>);

/// The process has ended its logging, or never began it.
#[derive(Debug, thiserror::Error)]
#[error("nothing is logged: {0}")]
pub struct NotLogging(String);

/// Logs to the standard error what a filter, which [`filter`] has read before, lets through, for the rest of the
/// process.
pub fn start(text: &str) -> Levels {
    let (filter, handle) = reload::Layer::new(text.parse::<Targets>().expect(READ));
    let lines = fmt::layer()
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    Levels(handle)
}

impl Levels {
    /// Levels and what is to be logged by, for a test that does not log for the rest of the process.
    #[cfg(test)]
    pub(crate) fn aside(text: &str) -> (Self, impl tracing::Subscriber + Send + Sync + 'static) {
        let (layer, handle) = reload::Layer::new(text.parse::<Targets>().expect(READ));
        (Self(handle), tracing_subscriber::registry().with(layer))
    }

    /// The filter in force, which may be spelled otherwise than it was given.
    ///
    /// # Errors
    /// When nothing is logged.
    pub fn get(&self) -> Result<String, NotLogging> {
        let text = self.0.with_current(ToString::to_string);
        text.map_err(|error| NotLogging(error.to_string()))
    }

    /// Puts another filter in force.
    ///
    /// # Errors
    /// When nothing is logged.
    pub fn set(&self, filter: Targets) -> Result<(), NotLogging> {
        let set = self.0.reload(filter);
        set.map_err(|error| NotLogging(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_alone_is_a_level() {
        for text in ["info", " WARN ", "off", "3", "info,weir_proxy::admin=debug"] {
            assert!(filter(text).is_ok(), "{text}");
        }
        for (text, said) in [
            ("", "empty"),
            ("debgu", "\"debgu\" is no level"),
            ("info,weir_proxy", "\"weir_proxy\" is no level"),
            ("weir_proxy=loud", "\"weir_proxy=loud\" is no level"),
            ("info,", "\"\" is no level"),
            ("weir_proxy=", "\"weir_proxy=\" is no level"),
            ("a[b{c=\"d,e\"}]=info", "is no level"),
            ("[span]", "\"[span]\" is no level"),
            (&"a".repeat(5000), "longer than 4096"),
        ] {
            let error = filter(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
            assert!(error.contains("info,weir_proxy::admin=debug"), "{error}");
        }
    }

    #[test]
    fn a_filter_is_changed_while_it_is_in_force() {
        let (levels, subscriber) = Levels::aside("info");
        tracing::subscriber::with_default(subscriber, || {
            assert!(tracing::enabled!(tracing::Level::INFO));
            assert!(!tracing::enabled!(tracing::Level::DEBUG));
            levels.set(filter("debug").unwrap()).unwrap();
            assert_eq!(levels.get().unwrap(), "debug");
            assert!(tracing::enabled!(tracing::Level::DEBUG));
        });
        assert!(levels.get().is_err(), "its subscriber is gone");
    }
}
