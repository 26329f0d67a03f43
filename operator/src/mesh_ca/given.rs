//! The files that provided authorities are in, where the operator reads files: outside Kubernetes. Looked at by `keeper` in
//! every pass, read by `resolve`. Certificate and key are two files, so a change is taken over once two looks in a row have
//! found the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use weir_crds::authority::{Authority, Data, RootSource};

/// Longest file that is read, in bytes: 1 MiB, as of the state directory.
const FILE_SIZE: u64 = 1024 * 1024;

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

/// What the files hold that one Mesh names, or why they do not, by path.
pub(super) type Texts = BTreeMap<String, Result<String, String>>;

/// The files of one Mesh.
#[derive(Default)]
struct OfMesh {
    known: Texts,
    /// What they held at the last look, where that is something else.
    seen: Option<Texts>,
}

/// The files of all Meshes.
pub(super) struct Given {
    meshes: BTreeMap<String, OfMesh>,
    /// How often they are looked at.
    look: Duration,
}

impl Given {
    pub(super) fn new(look: Duration) -> Self {
        Self {
            meshes: BTreeMap::new(),
            look,
        }
    }

    /// When they are to be looked at next; none where no Mesh names one.
    pub(super) fn pause(&self) -> Option<Duration> {
        (!self.meshes.is_empty()).then_some(self.look)
    }

    /// Forgets the Meshes that are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.meshes.retain(|mesh, _| is_there(mesh));
    }

    /// Looks at the files that a Mesh names. What they hold comes back.
    pub(super) fn look(&mut self, mesh: &str, authority: &Authority) -> Texts {
        let named = named(authority);
        if named.is_empty() {
            self.meshes.remove(mesh);
            return Texts::new();
        }
        let of_mesh = self.meshes.entry(mesh.to_owned()).or_default();
        let read = |path: &str| {
            (
                path.to_owned(),
                read(path).map_err(|why| format!("{path} {why}")),
            )
        };
        of_mesh.take(named.into_iter().map(read).collect());
        of_mesh.known.clone()
    }
}

impl OfMesh {
    fn take(&mut self, now: Texts) {
        // Nothing is used of which there is no whole.
        let is_other = !now.keys().eq(self.known.keys()) || self.known.values().any(Result::is_err);
        if now == self.known {
            self.seen = None;
        } else if is_other || self.seen.as_ref() == Some(&now) {
            (self.known, self.seen) = (now, None);
        } else {
            self.seen = Some(now);
        }
    }
}

/// The paths in an authority.
fn named(authority: &Authority) -> Vec<&str> {
    let RootSource::Provided { certificate, key } = &authority.root else {
        return Vec::new();
    };
    let paths = [certificate, key].into_iter();
    let paths = paths.filter_map(|source| match &source.data {
        Data::File(path) => Some(path.as_str()),
        Data::Secret(_) | Data::Base64(_) | Data::Text(_) => None,
    });
    paths.collect()
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_crds::mesh::MeshSpec;

    use super::*;
    use crate::folder::Folder;

    fn authority(certificate: &Path, key: &Path) -> Authority {
        let conf = json!({"cert": {"file": certificate}, "key": {"file": key}});
        let backend = json!({"name": "ca", "type": "provided", "conf": conf});
        let spec = json!({"mtls": {"enabledBackend": "ca", "backends": [backend]}});
        MeshSpec(spec).authority().unwrap().unwrap()
    }

    #[test]
    fn a_change_of_both_files_is_one() {
        let folder = Folder::new("given");
        let place = |name: &str| folder.path().join(name);
        let authority = authority(&place("c"), &place("k"));
        let mut given = Given::new(Duration::from_secs(5));
        assert_eq!(given.pause(), None);
        let look = |given: &mut Given| {
            let texts = given.look("default", &authority).into_values();
            texts
                .map(|text| text.unwrap_or_default())
                .collect::<String>()
        };
        folder.write("c", "c1 ");
        folder.write("k", "k1");
        assert_eq!(look(&mut given), "c1 k1", "the first are used at once");
        assert_eq!(given.pause(), Some(Duration::from_secs(5)));
        folder.write("c", "c2 ");
        assert_eq!(look(&mut given), "c1 k1");
        folder.write("k", "k2");
        assert_eq!(look(&mut given), "c1 k1");
        assert_eq!(look(&mut given), "c2 k2");
        // Away and back.
        std::fs::remove_file(place("k")).unwrap();
        assert_eq!(look(&mut given), "c2 k2");
        folder.write("k", "k2");
        assert_eq!(look(&mut given), "c2 k2");
        std::fs::remove_file(place("k")).unwrap();
        assert_eq!(look(&mut given), "c2 k2", "it was there in between");
        assert_eq!(look(&mut given), "c2 ");
        given.retain(|_| false);
        assert_eq!(given.pause(), None);
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_path() {
        let folder = Folder::new("given-odd");
        let place = |name: &str| folder.path().join(name);
        std::fs::create_dir(place("directory")).unwrap();
        std::fs::write(place("latin"), b"\xe9").unwrap();
        let long = usize::try_from(FILE_SIZE).unwrap() + 1;
        std::fs::write(place("long"), vec![b'x'; long]).unwrap();
        for (name, why) in [
            ("gone", "cannot be read: No such file"),
            ("directory", "is no file"),
            ("latin", "is not UTF-8"),
            ("long", "is longer than 1048576 bytes"),
        ] {
            let path = place(name);
            let texts = Given::new(Duration::ZERO).look("m", &authority(&path, &path));
            let told = texts.into_values().next().unwrap().unwrap_err();
            let wanted = format!("{} {why}", path.display());
            assert!(told.starts_with(&wanted), "{told}");
        }
    }
}
