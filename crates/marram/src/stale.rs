//! Which components are older than what they are built from, and which file belongs to which function.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use marram_core::manifest::Function;

use crate::exit::{Exit, Problem};
use crate::project::Project;

/// Folders that builds write to and nobody edits.
const IGNORED: [&str; 5] = ["target", "node_modules", "__pycache__", "dist", "venv"];
/// How deep sources may lie below the manifest.
const DEPTH_MAX: usize = 32;

/// The files that a function is built from.
#[derive(Debug)]
pub(crate) struct Sources {
    globs: GlobSet,
    /// The folders that a match can lie in, and whether their subfolders belong to them.
    roots: Vec<(PathBuf, bool)>,
    /// The component itself, where it is the source.
    itself: Option<PathBuf>,
}

impl Sources {
    /// What `function` is built from; without a build, that is its component.
    pub(crate) fn of(project: &Project, function: &Function) -> anyhow::Result<Self> {
        let patterns = function.build.as_ref().map_or(&[][..], |build| &build.watch);
        let mut set = GlobSetBuilder::new();
        let mut roots = Vec::new();
        for pattern in patterns {
            let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
            let glob = GlobBuilder::new(pattern).literal_separator(true).build().map_err(|error| {
                Problem::new(
                    Exit::Invalid,
                    format!("function \"{}\": the watch glob {pattern:?} cannot be used: {error}", function.name),
                )
            })?;
            set.add(glob);
            roots.push(root_of(&project.folder, pattern));
        }
        let itself = function.build.is_none().then(|| project.component(function));
        if let Some(folder) = itself.as_deref().and_then(Path::parent) {
            roots.push((folder.to_path_buf(), false));
        }
        Ok(Self { globs: set.build()?, roots, itself })
    }

    /// Whether `path` is one of them.
    pub(crate) fn contain(&self, folder: &Path, path: &Path) -> bool {
        self.itself.as_deref() == Some(path)
            || path.strip_prefix(folder).is_ok_and(|inside| self.globs.is_match(inside))
    }

    /// Every folder to watch.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for (root, deep) in &self.roots {
            if !root.is_dir() {
                // It is noticed when it is made.
                folders.extend(root.ancestors().find(|folder| folder.is_dir()).map(Path::to_path_buf));
                continue;
            }
            each_folder(root, if *deep { DEPTH_MAX } else { 0 }, &mut |folder| folders.push(folder.to_path_buf()));
        }
        folders
    }

    /// When the last of them was changed, if any is there.
    fn changed(&self, folder: &Path) -> Option<SystemTime> {
        let mut newest = None;
        for inside in self.folders() {
            let Ok(entries) = std::fs::read_dir(&inside) else { continue };
            let paths = entries.flatten().map(|entry| entry.path());
            for path in paths.filter(|path| self.contain(folder, path)) {
                newest = newest.max(modified(&path));
            }
        }
        newest
    }
}

/// Whether the component of `function` has to be built: it is not there, it is older than its sources, or (without
/// globs) nobody can tell.
pub(crate) fn is_stale(project: &Project, function: &Function) -> anyhow::Result<bool> {
    let Some(build) = &function.build else { return Ok(false) };
    let Some(built) = modified(&project.component(function)) else { return Ok(true) };
    if build.watch.is_empty() {
        return Ok(true);
    }
    Ok(Sources::of(project, function)?.changed(&project.folder).is_some_and(|changed| changed > built))
}

/// Whether `folder` is one that no source lies in.
pub(crate) fn is_ignored(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || IGNORED.contains(&name.as_ref())
}

/// Calls `each` with `folder` and the folders below it, down to `depth`, without the ignored.
pub(crate) fn each_folder(folder: &Path, depth: usize, each: &mut dyn FnMut(&Path)) {
    if !folder.is_dir() {
        return;
    }
    each(folder);
    let Some(depth) = depth.checked_sub(1) else { return };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // A link is not followed: it can lead back up.
        let inside = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !is_ignored(&inside) {
            each_folder(&inside, depth, each);
        }
    }
}

/// The folder in which the matches of a glob lie: its path up to the first part with a wildcard.
fn root_of(folder: &Path, pattern: &str) -> (PathBuf, bool) {
    let wild = |part: &str| part.contains(['*', '?', '[', '{']);
    let parts: Vec<_> = pattern.split('/').collect();
    let plain = parts[..parts.len() - 1].iter().take_while(|part| !wild(part)).count();
    let root = parts[..plain].iter().fold(folder.to_path_buf(), |path, part| path.join(part));
    (root, plain + 1 < parts.len())
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_folders_that_can_match_are_watched() {
        let root = |pattern| root_of(Path::new("/app"), pattern);
        assert_eq!(root("src/**/*.rs"), ("/app/src".into(), true));
        assert_eq!(root("src/*.rs"), ("/app/src".into(), false));
        assert_eq!(root("Cargo.toml"), ("/app".into(), false));
        assert_eq!(root("*.py"), ("/app".into(), false));
        assert_eq!(root("**/*.py"), ("/app".into(), true));
        assert_eq!(root("a/{b,c}/d.js"), ("/app/a".into(), true));
    }
}
