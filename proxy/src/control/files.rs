//! The files a proxy outside Kubernetes runs on: reads them, picks this proxy's Dataplane and its Mesh, and makes
//! settings of the two. Used by `reading`, again at every reload; what a Dataplane means is `universal`'s.

use super::hosts::Hosts;
use super::universal::{self, Selection, Universal};
use super::{ControlError, Input};
use std::io::Read;
use std::path::PathBuf;
use tracing::{info, warn};
use weir_crds::dataplane::DataplaneSpec;
use weir_crds::merge;
use weir_crds::mesh::MeshSpec;
use weir_crds::permission::{self, Candidate};
use weir_crds::settings::{MtlsMode, Settings};
use weir_crds::traffic_permission::TrafficPermissionSpec;
use weir_crds::universal::{Document, Entry, parse};
use weir_crds::violation::Violation;

/// Most that is read of a file or of the standard input, in bytes: 16 MiB, far more than any sane set of documents.
const FILE_SIZE: u64 = 16 * 1024 * 1024;

/// The inputs; the standard input is kept, since it can be read only once.
#[derive(Debug)]
pub(super) struct Files {
    dataplane: Input,
    mesh_file: Option<PathBuf>,
    selection: Selection,
    certified: Certified,
}

/// Where the proxy's certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certified {
    /// There is none; it speaks plaintext whatever its Mesh says.
    Not,
    /// It lies in files.
    InFiles,
    /// The operator gives it, and says whether the Mesh asks for one.
    ByOperator,
}

/// What the documents make of a proxy.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) universal: Universal,
    pub(super) settings: Settings,
    pub(super) remarks: Vec<Remark>,
}

/// What whoever wrote the documents should hear, though nothing is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remark {
    /// This Mesh asks for mutual TLS, and the proxy has no certificate.
    Uncertified(String),
    /// So many permissions have no effect.
    NoUse(usize),
}

impl Described {
    fn new(universal: Universal, settings: Settings) -> Self {
        Self {
            universal,
            settings,
            remarks: Vec::new(),
        }
    }
}

impl Remark {
    /// Logs it.
    pub(super) fn tell(self) {
        match self {
            Self::Uncertified(mesh) => warn!(
                mesh,
                "the Mesh asks for mTLS, but the proxy has no certificate and speaks plaintext: give it --control-plane-url and \
                 --dataplane-token-file, or --identity-cert-file, --identity-key-file and --identity-ca-file"
            ),
            Self::NoUse(count) => info!(
                count,
                "TrafficPermissions take effect only where the Mesh has mTLS"
            ),
        }
    }
}

/// All documents of all files.
#[derive(Debug, Default)]
pub(super) struct Documents {
    pub(super) dataplanes: Vec<Entry<DataplaneSpec>>,
    meshes: Vec<Entry<MeshSpec>>,
    permissions: Vec<Entry<TrafficPermissionSpec>>,
}

impl Files {
    /// Takes the standard input, where it is one of the inputs.
    pub(super) fn open(
        dataplane: Input,
        mesh_file: Option<PathBuf>,
        (selection, certified): (Selection, Certified),
    ) -> Result<Self, Vec<ControlError>> {
        let dataplane = match dataplane {
            Input::Stdin => {
                let text = read("the standard input", std::io::stdin().lock());
                Input::Inline(text.map_err(|error| vec![error])?)
            }
            other => other,
        };
        Ok(Self {
            dataplane,
            mesh_file,
            selection,
            certified,
        })
    }

    fn source_name(&self) -> String {
        match &self.dataplane {
            Input::File(path) => path.display().to_string(),
            Input::Inline(_) | Input::Stdin => "the given Dataplane".to_owned(),
        }
    }

    /// Reads everything.
    pub(super) fn documents(&self) -> Result<Documents, Vec<ControlError>> {
        let mut documents = Documents::default();
        let mut problems = Vec::new();
        let source_name = self.source_name();
        let text = match &self.dataplane {
            Input::File(path) => read_file(path),
            Input::Inline(text) => Ok(text.clone()),
            Input::Stdin => unreachable!("`open` has replaced the standard input by its text"),
        };
        documents.add(&source_name, text, &mut problems);
        if let Some(path) = &self.mesh_file {
            documents.add(&path.display().to_string(), read_file(path), &mut problems);
        }
        match problems.is_empty() {
            true => Ok(documents),
            false => Err(problems),
        }
    }

    /// The own Dataplane, and where those are that it calls, as far as `hosts` knows their addresses.
    pub(super) fn locate(
        &self,
        documents: &Documents,
        hosts: &mut Hosts,
    ) -> Result<Universal, Vec<ControlError>> {
        let source_name = self.source_name();
        universal::read(&source_name, &documents.dataplanes, &self.selection, hosts)
    }

    /// Judges everything.
    pub(super) fn judge(
        &self,
        documents: &Documents,
        hosts: &mut Hosts,
    ) -> Result<Described, Vec<ControlError>> {
        let universal = self.locate(documents, hosts)?;
        documents.judge(universal, (self.mesh_file.is_some(), self.certified))
    }
}

pub(super) fn read_file(path: &PathBuf) -> Result<String, ControlError> {
    let name = path.display().to_string();
    match std::fs::File::open(path) {
        Ok(file) => read(&name, file),
        Err(error) => Err(ControlError::Read {
            source_name: name,
            error,
        }),
    }
}

fn read(source_name: &str, input: impl Read) -> Result<String, ControlError> {
    let failed = |error| ControlError::Read {
        source_name: source_name.to_owned(),
        error,
    };
    let mut text = String::new();
    input
        .take(FILE_SIZE + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > FILE_SIZE {
        let message = format!("it is longer than {FILE_SIZE} bytes");
        return Err(failed(std::io::Error::other(message)));
    }
    Ok(text)
}

impl Documents {
    fn add(
        &mut self,
        source_name: &str,
        text: Result<String, ControlError>,
        problems: &mut Vec<ControlError>,
    ) {
        let parsed = match text {
            Ok(text) => parse(&text),
            Err(error) => return problems.push(error),
        };
        match parsed {
            Ok(documents) => documents.into_iter().for_each(|document| match document {
                Document::Dataplane(entry) => self.dataplanes.push(entry),
                Document::Mesh(entry) => self.meshes.push(entry),
                Document::TrafficPermission(entry) => self.permissions.push(entry),
            }),
            Err(errors) => {
                problems.extend(errors.into_iter().map(|error| ControlError::Document {
                    source_name: source_name.to_owned(),
                    error,
                }))
            }
        }
    }

    fn judge(
        &self,
        universal: Universal,
        (mesh_given, certified): (bool, Certified),
    ) -> Result<Described, Vec<ControlError>> {
        let mut problems = Vec::new();
        let own = (universal.mesh.as_str(), universal.name.as_str());
        let over = match universal::metrics_override(&self.dataplanes, own) {
            Ok(over) => over,
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        if certified == Certified::ByOperator && self.meshes.is_empty() && !mesh_given {
            let settings = Settings::until_told(&universal.mesh);
            return match problems.is_empty() {
                true => Ok(Described::new(universal, settings)),
                false => Err(problems),
            };
        }
        let spec = match self.mesh(own, mesh_given) {
            Ok(spec) => spec,
            Err(problem) => {
                problems.push(problem);
                return Err(problems);
            }
        };
        let missing = over.iter().flat_map(|over| merge::check(&spec, over));
        problems.extend(missing.map(|violation| ControlError::Dataplane {
            dataplane: universal.name.clone(),
            field: violation.field,
            message: violation.message,
        }));
        if !problems.is_empty() {
            return Err(problems);
        }
        let settings = merge::settings(&universal.mesh, &spec, over.as_ref());
        let mut described = Described::new(universal, settings);
        self.secure(&mut described, certified)?;
        Ok(described)
    }

    /// What mutual TLS asks for, and who may connect by it.
    fn secure(
        &self,
        described: &mut Described,
        certified: Certified,
    ) -> Result<(), Vec<ControlError>> {
        let Described {
            universal,
            settings,
            remarks,
        } = described;
        if settings.mtls != MtlsMode::Disabled && certified == Certified::Not {
            remarks.push(Remark::Uncertified(settings.mesh.clone()));
            settings.mtls = MtlsMode::Disabled;
        }
        if settings.mtls != MtlsMode::Disabled {
            let candidates = self.candidates(&universal.mesh);
            let candidates = candidates.map_err(|problem| vec![problem])?;
            let inbounds = universal.inbounds.iter();
            let inbounds = inbounds.map(|inbound| (inbound.listen.port(), &inbound.tags));
            permission::permit(settings, inbounds, &candidates);
        } else if !self.permissions.is_empty() {
            remarks.push(Remark::NoUse(self.permissions.len()));
        }
        Ok(())
    }

    /// The permissions of a Mesh.
    fn candidates(&self, mesh: &str) -> Result<Vec<Candidate>, ControlError> {
        let of_mesh = self.permissions.iter();
        of_mesh
            .filter(|entry| entry.mesh == mesh)
            .map(candidate)
            .collect()
    }

    /// The Mesh of the own Dataplane; the initial one where no file was meant to hold it.
    fn mesh(&self, own: (&str, &str), given: bool) -> Result<MeshSpec, ControlError> {
        let (mesh, dataplane) = own;
        let mut named = self.meshes.iter().filter(|entry| entry.name == mesh);
        match (named.next(), named.next()) {
            (Some(_), Some(_)) => Err(ControlError::Twice {
                kind: "Mesh",
                name: mesh.to_owned(),
            }),
            (Some(entry), None) => Ok(entry.spec.clone()),
            (None, _) if given || !self.meshes.is_empty() => Err(ControlError::NoMesh {
                mesh: mesh.to_owned(),
                dataplane: dataplane.to_owned(),
                found: listed(self.meshes.iter().map(|entry| entry.name.as_str())),
            }),
            (None, _) => Ok(MeshSpec::initial()),
        }
    }
}

/// A permission as it is selected among others; documents have no time of creation, so of equals the first by name wins.
fn candidate(entry: &Entry<TrafficPermissionSpec>) -> Result<Candidate, ControlError> {
    let wrong = |violation: Violation| ControlError::Permission {
        permission: entry.name.clone(),
        field: violation.field,
        message: violation.message,
    };
    Ok(Candidate {
        name: entry.name.clone(),
        created: 0,
        sources: entry.spec.sources().map_err(wrong)?,
        destinations: entry.spec.destinations().map_err(wrong)?,
    })
}

/// Names for an error message.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
