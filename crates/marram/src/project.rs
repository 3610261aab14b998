//! The app in a folder: where its manifest is, what it says, and which files it names.

use std::path::{Path, PathBuf};

use marram_core::manifest::{Function, Manifest};

use crate::cli::ProjectArgs;
use crate::exit::{Exit, Problem};

/// The name of a manifest.
pub(crate) const MANIFEST: &str = "marram.toml";
/// The folder beside it where `marram up` keeps its state.
pub(crate) const STATE: &str = ".marram";

/// An app's sources.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    /// The folder of the manifest; every path in it is relative to here.
    pub(crate) folder: PathBuf,
    /// The manifest's own path.
    pub(crate) manifest_path: PathBuf,
    /// The manifest as it was written: a deployment sends it unchanged.
    pub(crate) text: String,
    /// What it says.
    pub(crate) manifest: Manifest,
}

impl Project {
    /// Finds and reads the manifest that the arguments name.
    pub(crate) fn open(args: &ProjectArgs) -> anyhow::Result<Self> {
        Self::read(find(&args.path)?)
    }

    /// Reads the manifest again.
    pub(crate) fn reopen(&self) -> anyhow::Result<Self> {
        Self::read(self.manifest_path.clone())
    }

    fn read(manifest_path: PathBuf) -> anyhow::Result<Self> {
        let shown = shown(&manifest_path);
        let text = std::fs::read_to_string(&manifest_path)
            .map_err(|error| Problem::new(Exit::NotFound, format!("cannot read {shown}: {error}")))?;
        let manifest =
            Manifest::parse(&text).map_err(|error| Problem::new(Exit::Invalid, format!("{shown}: {error}")))?;
        let folder = manifest_path.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Self { folder, manifest_path, text, manifest })
    }

    /// Where the component of `function` is.
    pub(crate) fn component(&self, function: &Function) -> PathBuf {
        self.folder.join(&function.component)
    }

    /// The first function whose component is not there, as an error with what to do.
    pub(crate) fn missing_component(&self) -> Option<Problem> {
        self.manifest.functions.iter().find_map(|function| self.missing(function))
    }

    /// The first function whose component nothing builds, and that is not there.
    pub(crate) fn missing_source(&self) -> Option<Problem> {
        let mut sources = self.manifest.functions.iter().filter(|function| function.build.is_none());
        sources.find_map(|function| self.missing(function))
    }

    fn missing(&self, function: &Function) -> Option<Problem> {
        if self.component(function).is_file() {
            return None;
        }
        let message = format!("function \"{}\": its component {} is not there", function.name, function.component);
        let hint = match function.build {
            Some(_) => "build it with `marram build`",
            None => "write the path of an existing file as its `component`, or add a `build`",
        };
        Some(Problem::new(Exit::NotFound, message).hint(hint))
    }

    /// Why a deployment of it takes a while, if it does.
    pub(crate) fn compiles(&self) -> String {
        let has = |endings: &[&str]| {
            self.manifest.functions.iter().any(|function| endings.iter().any(|end| function.component.ends_with(end)))
        };
        let language = match (has(&[".js", ".mjs"]), has(&[".py"])) {
            (false, false) => return "still compiling: a node does that once for each component".to_owned(),
            (true, true) => "JavaScript or Python",
            (true, false) => "JavaScript",
            (false, true) => "Python",
        };
        format!(
            "still compiling: the first {language} function takes longer, because the engine is compiled, once for this node"
        )
    }

    /// Where `marram up` keeps its state.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join(STATE)
    }
}

/// The manifest of a folder, of the nearest folder above that has one, or the file itself.
fn find(path: &Path) -> anyhow::Result<PathBuf> {
    let start = path
        .canonicalize()
        .map_err(|error| Problem::new(Exit::NotFound, format!("cannot open {}: {error}", path.display())))
        .map_err(|problem| problem.hint(format!("name the folder of an app, or its {MANIFEST}")))?;
    if start.is_file() {
        return Ok(start);
    }
    let found = start.ancestors().map(|folder| folder.join(MANIFEST)).find(|manifest| manifest.is_file());
    found.ok_or_else(|| {
        Problem::new(Exit::NotFound, format!("no {MANIFEST} in {} or above it", shown(&start)))
            .hint("make an app with `marram new <dir> --template http-js`, or go to the folder of one")
            .into()
    })
}

/// A path as the user would write it: relative to where they are, if it is below.
pub(crate) fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok().and_then(|here| here.canonicalize().ok());
    let relative = here.as_deref().and_then(|here| path.strip_prefix(here).ok());
    match relative {
        Some(inside) if inside.as_os_str().is_empty() => ".".into(),
        Some(inside) => inside.display().to_string(),
        None => path.display().to_string(),
    }
}
