//! Embeds `templates/` into the binary, so that `marram new` needs no network and no installed files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// A template is read by people; what is larger than this got there by mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

fn main() -> io::Result<()> {
    let home = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let templates = home.join("../../templates");
    println!("cargo::rerun-if-changed={}", templates.display());
    let mut out = String::from(
        "/// Every template: its name, and its files in the order of their paths.\npub(crate) static TEMPLATES: &[Template] = &[\n",
    );
    for template in entries(&templates)?.into_iter().filter(|path| path.is_dir()) {
        let mut files = Vec::new();
        gather(&template, &mut files)?;
        writeln!(out, "    Template {{ name: {:?}, files: &[", name_of(&template)).expect("a string takes it");
        for file in files {
            println!("cargo::rerun-if-changed={}", file.display());
            let inside = file.strip_prefix(&template).expect("it was found below").to_string_lossy().replace('\\', "/");
            let path = file.canonicalize()?;
            writeln!(out, "        ({inside:?}, include_bytes!({path:?})),").expect("a string takes it");
        }
        out.push_str("    ] },\n");
    }
    out.push_str("];\n");
    fs::write(PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("templates.rs"), out)
}

/// The files below `folder`, without what a build leaves behind.
fn gather(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for path in entries(folder)? {
        if matches!(name_of(&path).as_str(), "target" | "node_modules" | "__pycache__" | "dist" | ".marram" | ".venv") {
            continue;
        }
        println!("cargo::rerun-if-changed={}", path.display());
        if path.is_dir() {
            gather(&path, files)?;
        } else {
            let bytes = path.metadata()?.len();
            assert!(bytes <= FILE_BYTES_MAX, "{} has {bytes} bytes: a template's files are small", path.display());
            files.push(path);
        }
    }
    Ok(())
}

/// In order, so that the same templates give the same binary. A folder that is not there has no entries.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let found = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    let mut paths = found.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
