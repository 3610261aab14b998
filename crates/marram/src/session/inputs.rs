//! What the app is made of right now: its manifest, its components, and which file belongs to which function.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use marram_core::manifest::Function;
use marram_node::{ComponentSource, Package};

use crate::building::{self, Job};
use crate::project::Project;
use crate::stale::{self, Sources};
use crate::watch::Matters;

/// The inputs of a deployment.
pub(crate) struct Inputs {
    project: Project,
    sources: Arc<BTreeMap<String, Sources>>,
    /// Read once after each build: a linker that is running may be rewriting the file.
    components: BTreeMap<String, Bytes>,
}

/// What a change asks for.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Something can be deployed as it is.
    pub(crate) deploy: bool,
    /// Something has to be built first.
    pub(crate) builds: Vec<Job>,
    /// What cannot be deployed before a file is there.
    pub(crate) missing: Vec<anyhow::Error>,
}

impl Inputs {
    /// Reads what is there, and says what has to be built.
    pub(crate) fn new(project: Project) -> anyhow::Result<(Self, Changes)> {
        let mut inputs = Self { project, sources: Arc::default(), components: BTreeMap::new() };
        let changes = inputs.read_all()?;
        Ok((inputs, changes))
    }

    /// The app.
    pub(crate) const fn project(&self) -> &Project {
        &self.project
    }

    /// The manifest's path.
    pub(crate) fn manifest_path(&self) -> &PathBuf {
        &self.project.manifest_path
    }

    /// Whether every function has a component.
    pub(crate) fn complete(&self) -> bool {
        self.project.manifest.functions.iter().all(|function| self.components.contains_key(function.name.as_str()))
    }

    /// What a deployment takes.
    pub(crate) fn package(&self) -> Package {
        let bytes = |(name, bytes): (&String, &Bytes)| (name.clone(), ComponentSource::Bytes(bytes.clone()));
        Package { manifest: self.project.text.clone(), components: self.components.iter().map(bytes).collect() }
    }

    /// Tells whether a file's change means anything.
    pub(crate) fn matters(&self) -> Matters {
        let (manifest, folder, sources) =
            (self.project.manifest_path.clone(), self.project.folder.clone(), Arc::clone(&self.sources));
        Box::new(move |path| path == manifest || sources.values().any(|sources| sources.contain(&folder, path)))
    }

    /// The folders to watch.
    pub(crate) fn folders(&self) -> BTreeSet<PathBuf> {
        let manifest = std::iter::once(self.project.folder.clone());
        let sources = self.sources.values().flat_map(Sources::folders);
        manifest.chain(sources).filter(|folder| folder.is_dir()).collect()
    }

    /// Functions that are built, and yet have no sources named: a save does not rebuild them.
    pub(crate) fn unwatched(&self) -> impl Iterator<Item = &Function> {
        let unwatched = |function: &&Function| function.build.as_ref().is_some_and(|build| build.watch.is_empty());
        self.project.manifest.functions.iter().filter(unwatched)
    }

    /// The manifest may have changed, and with it anything.
    pub(crate) fn reload(&mut self) -> anyhow::Result<Changes> {
        let project = self.project.reopen()?;
        for function in &project.manifest.functions {
            let name = function.name.as_str();
            let before = self.project.manifest.function(name).map(|before| (&before.component, &before.build));
            if before != Some((&function.component, &function.build)) {
                self.components.remove(name);
            }
        }
        self.components.retain(|name, _| project.manifest.function(name).is_some());
        self.project = project;
        self.read_all()
    }

    /// These files have changed; the manifest is not among them.
    pub(crate) fn changed(&mut self, paths: &BTreeSet<PathBuf>) -> Changes {
        let new_folder = paths.iter().any(|path| path.is_dir());
        let mut changes = Changes::default();
        let mut rebuild = Vec::new();
        for function in &self.project.manifest.functions {
            let Some(sources) = self.sources.get(function.name.as_str()) else { continue };
            let hit = paths.iter().any(|path| sources.contain(&self.project.folder, path));
            // What was written into a new folder before it was watched shows only by its time.
            let awaited = || !self.components.contains_key(function.name.as_str());
            let hit = hit || (new_folder && (awaited() || stale::is_stale(&self.project, function).unwrap_or(false)));
            if !hit {
                continue;
            }
            if function.build.is_some() {
                rebuild.push(function);
            } else if let Ok(bytes) = read(&self.project, function) {
                self.components.insert(function.name.to_string(), bytes);
                changes.deploy = true;
            }
        }
        changes.builds = building::jobs(rebuild);
        changes
    }

    /// Reads what a build has made.
    pub(crate) fn take_in(&mut self, job: &Job) -> anyhow::Result<()> {
        for name in &job.functions {
            let Some(function) = self.project.manifest.function(name) else { continue };
            if !self.project.component(function).is_file() {
                return Err(building::made_nothing(function).into());
            }
            self.components.insert(name.clone(), read(&self.project, function)?);
        }
        Ok(())
    }

    /// Reads every component that is there and not known yet, and says what has to be built and what is not there.
    ///
    /// What each function is made of is known first: a file that is missing now is noticed when it is written.
    fn read_all(&mut self) -> anyhow::Result<Changes> {
        let functions = &self.project.manifest.functions;
        let sources = functions
            .iter()
            .map(|function| Sources::of(&self.project, function).map(|sources| (function.name.to_string(), sources)));
        self.sources = Arc::new(sources.collect::<anyhow::Result<_>>()?);
        let (mut stale, mut missing) = (Vec::new(), Vec::new());
        for function in functions {
            let name = function.name.to_string();
            let known = self.components.contains_key(&name);
            if stale::is_stale(&self.project, function)? && !(known && nobody_can_tell(function)) {
                stale.push(function);
            }
            if function.build.is_some() && (known || !self.project.component(function).is_file()) {
                continue;
            }
            match read(&self.project, function) {
                Ok(bytes) => {
                    self.components.insert(name, bytes);
                }
                Err(error) => {
                    self.components.remove(&name);
                    missing.push(error);
                }
            }
        }
        Ok(Changes { deploy: true, builds: building::jobs(stale), missing })
    }
}

/// Without globs a component counts as stale, but once is enough.
fn nobody_can_tell(function: &Function) -> bool {
    function.build.as_ref().is_some_and(|build| build.watch.is_empty())
}

fn read(project: &Project, function: &Function) -> anyhow::Result<Bytes> {
    let read = std::fs::read(project.component(function)).map(Bytes::from);
    read.with_context(|| format!("function \"{}\": cannot read its component {}", function.name, function.component))
}
