//! The templates that are embedded in the binary, and how one becomes an app.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use marram_core::Name;

include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// A template: its name, and its files by path.
pub(crate) struct Template {
    /// What `--template` takes.
    pub(crate) name: &'static str,
    /// Paths within the app, and contents.
    pub(crate) files: &'static [(&'static str, &'static [u8])],
}

/// What each template is, for the help; a template that is not listed is shown by its name alone.
const ABOUT: [(&str, &str); 5] = [
    ("http-rust", "Rust, wasi:http 0.2: a fresh instance for every request"),
    ("http-rust-p3", "Rust, wasi:http 0.3: async, many requests in one instance"),
    ("http-js", "JavaScript, served as source"),
    ("http-ts", "TypeScript, compiled to one JavaScript file"),
    ("http-python", "Python"),
];

impl Template {
    /// The template of this name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        TEMPLATES.iter().find(|template| template.name == name)
    }

    /// One line about it.
    pub(crate) fn about(&self) -> &'static str {
        ABOUT.iter().find(|(name, _)| *name == self.name).map_or("", |(_, about)| about)
    }

    /// Writes the app `name` into `folder`, and returns the paths that were written. Nothing is overwritten: the caller
    /// has checked that the folder is empty.
    pub(crate) fn write(&self, folder: &Path, name: &Name) -> anyhow::Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        for (path, content) in self.files {
            // `.tmpl` keeps cargo and npm from taking a template for a project of their own.
            let inside = fill(path.strip_suffix(".tmpl").unwrap_or(path), name);
            let target = folder.join(&inside);
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
            }
            let filled = std::str::from_utf8(content).map(|text| fill(text, name).into_bytes());
            let content = filled.unwrap_or_else(|_| content.to_vec());
            std::fs::write(&target, content).with_context(|| format!("cannot write {}", target.display()))?;
            written.push(PathBuf::from(inside));
        }
        Ok(written)
    }
}

/// `{{name}}` is the app; `{{name_snake}}` the same as an identifier.
fn fill(text: &str, name: &Name) -> String {
    text.replace("{{name}}", name.as_str()).replace("{{name_snake}}", &name.as_str().replace('-', "_"))
}
