//! Every dependency has a permissive licence.

use anyhow::{Context as _, bail};

/// Licences that ask for no more than notice.
const PERMISSIVE: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// What goes into the binary has its dependencies in these workspaces; what has no `Cargo.toml` is in THIRD-PARTY.md.
const MANIFESTS: &[&str] = &["Cargo.toml", "guests/js-engine/Cargo.toml", "guests/js-engine/snapshot/Cargo.toml"];

/// Fails with every package whose licence is another one, or unknown.
pub(crate) fn check() -> anyhow::Result<()> {
    let (mut seen, mut wrong) = (0, Vec::new());
    for manifest in MANIFESTS {
        let metadata = crate::metadata(&["--manifest-path", manifest])?;
        let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
        seen += packages.len();
        wrong.extend(
            packages.iter().filter(|package| !package["license"].as_str().is_some_and(is_permissive)).map(|package| {
                format!("{} {}: {} ({manifest})", package["name"], package["version"], package["license"])
            }),
        );
    }
    if !wrong.is_empty() {
        bail!("licences that are not known as permissive:\n  {}", wrong.join("\n  "));
    }
    println!("licences: {seen} packages, all permissive");
    Ok(())
}

/// An SPDX expression: every part of an AND has to be permissive, and one part of an OR.
fn is_permissive(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    plain.split(" AND ").all(|part| part.split(" OR ").any(|licence| PERMISSIVE.contains(&licence.trim())))
}

#[cfg(test)]
mod tests {
    use super::is_permissive;

    #[test]
    fn expressions() {
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(is_permissive(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "", "SSPL-1.0 OR AGPL-3.0"] {
            assert!(!is_permissive(bad), "{bad}");
        }
    }
}
