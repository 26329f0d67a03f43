//! A node as the keeper sees it: its directory of plugins and that of its network configuration. One look tells what is to
//! be done so that the plugin is there, or gone; each step is done by itself. Called by `keeper`, which repeats it.
//! It knows no time and writes no log.

use std::cell::Cell;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::PLUGIN;
use super::conflist::{self, Unusable};
use super::files::{self, FileError, Stamp};

mod step;

pub(super) use self::step::Step;

/// The mode of the plugin.
const MODE: u32 = 0o755;

/// The names that container runtimes read (containerd's go-cni, CRI-O's ocicni); of what there is the first in the order
/// of bytes is in use.
const READ: [&str; 3] = [".conf", ".conflist", ".json"];
const LIST: &str = ".conflist";

/// How the list ends that chains us to a configuration of one plugin: `10-x-weir-cni.conflist` beside `10-x.conf`.
/// A `-` comes before a `.`, so a runtime takes the list.
const BESIDE: &str = "-weir-cni.conflist";

/// What a node should be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    Installed,
    Removed,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) bin_dir: PathBuf,
    pub(super) conf_dir: PathBuf,
    /// What the plugin is a copy of.
    pub(super) program: PathBuf,
    /// The plugin when it was last compared, and was the same.
    pub(super) compared: Cell<Option<Stamp>>,
}

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// What is to be done, in this order: a step that fails ends it. No configuration names a plugin that is not there.
    pub(super) steps: Vec<Step>,
    /// What is in the way, and nothing that is done here changes it.
    pub(super) unmet: Vec<String>,
    /// What is odd and in nobody's way.
    pub(super) remarks: Vec<String>,
}

impl Node {
    /// What there is to do, and what is in the way.
    pub(super) fn look(&self, aim: Aim) -> Look {
        let mut look = Look::default();
        let looked = match aim {
            Aim::Installed => self.look_for_more(&mut look),
            Aim::Removed => self.look_for_less(&mut look),
        };
        if let Err(error) = looked {
            look.unmet.push(error.to_string());
        }
        look
    }

    fn look_for_more(&self, look: &mut Look) -> Result<(), FileError> {
        let plugin = self.bin_dir.join(PLUGIN);
        if !self.is_installed(&plugin)? {
            look.steps.push(Step::Copy(plugin));
        }
        let names = self.names()?;
        let mut beside = None;
        let mut broken = Vec::new();
        match self.in_use(&names, &mut broken, look) {
            None => look.unmet.push(format!(
                "{}: no network configuration yet; {PLUGIN} waits for the cluster's network plugin to write one",
                self.conf_dir.display()
            )),
            Some(InUse { path, text, wanted }) => match wanted {
                Err(error) => {
                    let path = path.display();
                    look.unmet.push(format!("{path}: left as it is, {error}"));
                }
                Ok(Wanted::Nothing) => {}
                Ok(Wanted::Text(wanted)) => look.steps.push(Step::Edit {
                    path,
                    before: text,
                    text: wanted,
                    aim: Aim::Installed,
                }),
                Ok(Wanted::Beside(name, wanted)) => {
                    let list = self.conf_dir.join(&name);
                    if files::text(&list).ok().as_ref() != Some(&wanted) {
                        look.steps.push(Step::Chain {
                            path: list,
                            original: path,
                            text: wanted,
                        });
                    }
                    beside = Some(name);
                }
            },
        }
        look.steps.extend(self.stale(&names, beside, &broken));
        Ok(())
    }

    /// Removes the lists that chain us to a configuration that has gone, or is not in use any more: a runtime could take
    /// them for the one in use. One that nobody can read may be about to be written.
    fn stale(
        &self,
        names: &[String],
        beside: Option<String>,
        broken: &[String],
    ) -> impl Iterator<Item = Step> {
        let kept = broken.iter().map(|name| beside_of(name)).chain(beside);
        let kept: Vec<String> = kept.collect();
        let lists = names.iter().filter(|name| name.ends_with(BESIDE));
        lists
            .filter(move |name| !kept.contains(name))
            .map(|name| Step::Delete(self.conf_dir.join(name)))
    }

    fn look_for_less(&self, look: &mut Look) -> Result<(), FileError> {
        for name in self.names()? {
            let path = self.conf_dir.join(&name);
            if name.ends_with(BESIDE) {
                look.steps.push(Step::Delete(path));
                continue;
            }
            if !name.ends_with(LIST) {
                continue;
            }
            let text = match self.read(&name) {
                Ok(Some(text)) => text,
                Ok(None) => continue,
                Err(error) => {
                    look.unmet.push(error.to_string());
                    continue;
                }
            };
            match conflist::list(&text) {
                Ok(list) => look
                    .steps
                    .extend(list.without_plugin().map(|wanted| Step::Edit {
                        path,
                        before: text.clone(),
                        text: wanted,
                        aim: Aim::Removed,
                    })),
                Err(error) if text.contains(PLUGIN) => look.unmet.push(format!(
                    "{}: left as it is, {error}; take {PLUGIN} out of it by hand",
                    path.display()
                )),
                Err(_) => {}
            }
        }
        let plugin = self.bin_dir.join(PLUGIN);
        self.has_bin_dir()?;
        let is_there = files::stamp(&plugin).map_err(FileError::new("look at", &plugin))?;
        if is_there.is_some() && look.unmet.is_empty() {
            look.steps.push(Step::Delete(plugin));
        }
        Ok(())
    }

    fn has_bin_dir(&self) -> Result<(), FileError> {
        let directory = fs::read_dir(&self.bin_dir);
        directory
            .map(drop)
            .map_err(FileError::new("read", &self.bin_dir))
    }

    fn is_installed(&self, plugin: &Path) -> Result<bool, FileError> {
        self.has_bin_dir()?;
        let error = || FileError::new("read", plugin);
        let Some(stamp) = files::stamp(plugin).map_err(error())? else {
            return Ok(false);
        };
        if self.compared.get() == Some(stamp) {
            return Ok(true);
        }
        let is_copy = files::is_copy(&self.program, plugin, MODE).map_err(error())?;
        self.compared.set(is_copy.then_some(stamp));
        Ok(is_copy)
    }

    /// The names of all network configurations, as a runtime orders them.
    fn names(&self) -> Result<Vec<String>, FileError> {
        let entries = fs::read_dir(&self.conf_dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.map_err(FileError::new("read", &self.conf_dir))?;
        let files = entries
            .iter()
            .filter(|entry| !entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut names: Vec<String> = files
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| READ.iter().any(|end| name.ends_with(end)))
            .collect();
        names.sort();
        Ok(names)
    }

    /// The text of a configuration; none where it has gone meanwhile.
    fn read(&self, name: &str) -> Result<Option<String>, FileError> {
        let path = self.conf_dir.join(name);
        match files::text(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => read.map(Some).map_err(FileError::new("read", &path)),
        }
    }

    /// The configuration that a runtime uses. Those that nobody can use are passed over, as CRI-O does; containerd then
    /// has no network at all.
    fn in_use(&self, names: &[String], broken: &mut Vec<String>, look: &mut Look) -> Option<InUse> {
        for name in names.iter().filter(|name| !name.ends_with(BESIDE)) {
            let path = self.conf_dir.join(name);
            let text = match self.read(name) {
                Ok(Some(text)) => text,
                Ok(None) => continue,
                Err(error) => {
                    look.remarks.push(error.to_string());
                    broken.push(name.clone());
                    continue;
                }
            };
            match wanted(name, &text) {
                Err(error @ (Unusable::Json(_) | Unusable::Field(_))) => {
                    let path = path.display();
                    look.remarks.push(format!("{path}: left as it is, {error}"));
                    broken.push(name.clone());
                }
                wanted => return Some(InUse { path, text, wanted }),
            }
        }
        None
    }
}

/// The network configuration in use.
struct InUse {
    path: PathBuf,
    text: String,
    wanted: Result<Wanted, Unusable>,
}

/// What has to be written so that we are in it.
enum Wanted {
    Nothing,
    Text(String),
    /// In the list of this name.
    Beside(String, String),
}

fn wanted(name: &str, text: &str) -> Result<Wanted, Unusable> {
    if !name.ends_with(LIST) {
        let list = conflist::chained(text, name)?;
        return Ok(Wanted::Beside(beside_of(name), list));
    }
    let list = conflist::list(text)?.with_plugin()?;
    Ok(list.map_or(Wanted::Nothing, Wanted::Text))
}

/// The name of the list that chains us to a configuration of one plugin.
fn beside_of(name: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    format!("{stem}{BESIDE}")
}

#[cfg(test)]
pub(super) mod tests;
