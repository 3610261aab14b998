//! The generated pages of the book: the binary prints them, so that they say what the code does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// What to do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Write it.
    Write,
    /// Fail if it is not what it would be.
    Check,
}

/// Arguments of `marram reference`, and the page that they print.
const PAGES: &[(&[&str], &str)] = &[
    (&["reference"], "docs/book/src/reference/cli.md"),
    (&["reference", "manifest"], "docs/book/src/reference/manifest.md"),
    (&["reference", "limits"], "docs/book/src/reference/limits.md"),
];

pub(crate) fn run(mode: Mode) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is below the root")?;
    let marram = binary(root)?;
    let mut stale = Vec::new();
    for (arguments, page) in PAGES {
        let output = Command::new(&marram)
            .args(*arguments)
            .output()
            .with_context(|| format!("{} cannot run", marram.display()))?;
        if !output.status.success() {
            bail!("`marram {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        let path = root.join(page);
        if fs::read(&path).is_ok_and(|current| current == output.stdout) {
            continue;
        }
        match mode {
            Mode::Check => stale.push(*page),
            Mode::Write => {
                fs::create_dir_all(path.parent().context("a page is in a folder")?)?;
                fs::write(&path, &output.stdout)?;
                println!("docs: wrote {page}");
            }
        }
    }
    if !stale.is_empty() {
        bail!("out of date: {}; run `make docs`", stale.join(", "));
    }
    println!("docs: {} generated pages are up to date", PAGES.len());
    Ok(())
}

/// The binary of the usual build, which `make` has built before.
fn binary(root: &Path) -> anyhow::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let binary = target.join("release/marram");
    if !binary.exists() {
        bail!("{} is not there: run `make build` first", binary.display());
    }
    Ok(binary)
}
