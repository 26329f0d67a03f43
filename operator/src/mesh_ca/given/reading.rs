//! Reads files beside the thread that all else runs on: a disk that does not answer holds up nothing but what is in it.
//! Part of `given`; it knows no Mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// Longest file that is read, in bytes: 1 MiB, as of the state directory.
pub(super) const FILE_SIZE: u64 = 1024 * 1024;

/// How long a pass waits for files; one that takes longer stays what it was until it is read.
pub(super) const READ_TIME: Duration = Duration::from_secs(1);

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("is no file: name one with PEM in it")]
    Kind,
    #[error("is longer than {FILE_SIZE} bytes: leave the certificates alone in it that are needed")]
    Long,
    #[error("is not UTF-8: it has to be PEM")]
    Text,
}

/// A file's text, or why there is none.
pub(super) type Text = Result<String, String>;

/// The files that are read, by path.
#[derive(Default)]
pub(super) struct Reading {
    /// One at a time for each path, so that a disk that hangs has one thread for each.
    pub(super) under_way: BTreeMap<String, UnderWay>,
    /// What was read in this pass.
    read: BTreeMap<String, Text>,
    /// Those that took too long, as they were logged.
    slow: BTreeSet<String>,
}

/// A file that is being read.
pub(super) struct UnderWay {
    pub(super) text: JoinHandle<Text>,
    /// Nobody named the file meanwhile: it may be another by now.
    pub(super) is_stale: bool,
}

impl Reading {
    /// Reads these files anew, for at most [`READ_TIME`] all together, and none once more that took too long.
    pub(super) async fn read(&mut self, paths: &BTreeSet<&str>) {
        self.read.clear();
        // Whoever comes back from a disk that hung is not waited for by anybody.
        self.under_way.retain(|path, reading| {
            reading.is_stale |= !paths.contains(path.as_str());
            !(reading.is_stale && reading.text.is_finished())
        });
        let under_way = &mut self.under_way;
        self.slow.retain(|path| under_way.contains_key(path));
        for path in paths {
            let start = || {
                let path = (*path).to_owned();
                let read = move || read(&path).map_err(|why| format!("{path} {why}"));
                UnderWay {
                    text: tokio::task::spawn_blocking(read),
                    is_stale: false,
                }
            };
            under_way.entry((*path).to_owned()).or_insert_with(start);
        }
        let end = Instant::now() + READ_TIME;
        for path in paths {
            let reading = self.under_way.get_mut(*path);
            let Some(reading) = reading.filter(|reading| !reading.is_stale) else {
                continue;
            };
            // A disk that hangs is waited for once.
            let is_slow = self.slow.contains(*path);
            let until = if is_slow { Instant::now() } else { end };
            let Ok(text) = timeout_at(until, &mut reading.text).await else {
                if self.slow.insert((*path).to_owned()) {
                    tracing::warn!(
                        path,
                        "a file is not read in time: what it held before is used"
                    );
                }
                continue;
            };
            self.under_way.remove(*path);
            self.slow.remove(*path);
            let text = text.expect("reading does not panic");
            self.read.insert((*path).to_owned(), text);
        }
    }

    /// Whether a file was read in this pass.
    pub(super) fn has(&self, path: &str) -> bool {
        self.read.contains_key(path)
    }

    /// What a file holds.
    pub(super) fn of(&self, path: &str) -> Text {
        let text = self.read.get(path).cloned();
        text.unwrap_or_else(|| {
            let seconds = READ_TIME.as_secs();
            Err(format!(
                "{path} cannot be read: there is no answer within {seconds} s, see to the disk that it is on"
            ))
        })
    }
}

fn read(path: impl AsRef<Path>) -> Result<String, FileError> {
    // A pipe would be waited for.
    if !fs::metadata(&path)?.is_file() {
        return Err(FileError::Kind);
    }
    let mut bytes = Vec::new();
    let file = File::open(&path)?;
    file.take(FILE_SIZE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_SIZE {
        true => Err(FileError::Long),
        false => String::from_utf8(bytes).map_err(|_| FileError::Text),
    }
}
