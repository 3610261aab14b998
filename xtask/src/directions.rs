//! Which crate may depend on which: siblings meet in `marram-core`, and only `marram-node` joins them.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

/// Each crate of the workspace with the crates of the workspace that it may name, tests included.
const ALLOWED: &[(&str, &[&str])] = &[
    ("marram-core", &[]),
    ("marram-js-abi", &[]),
    ("marram-replica", &["marram-core"]),
    ("marram-store", &["marram-core", "marram-replica"]),
    ("marram-telemetry", &["marram-core"]),
    ("marram-gateway", &["marram-core"]),
    ("marram-trigger", &["marram-core"]),
    ("marram-mqtt", &["marram-core"]),
    ("marram-s3", &["marram-core"]),
    ("marram-runtime", &["marram-core", "marram-js-abi"]),
    (
        "marram-node",
        &[
            "marram-core",
            "marram-store",
            "marram-telemetry",
            "marram-gateway",
            "marram-runtime",
            "marram-trigger",
            "marram-mqtt",
            "marram-s3",
            "marram-testkit",
        ],
    ),
    ("marram-testkit", &["marram-core", "marram-node"]),
    ("marram", &["marram-core", "marram-node", "marram-testkit"]),
    ("xtask", &["marram-core"]),
];

/// The only crate that may name each of these.
const OWNERS: &[(&str, &[&str])] = &[
    ("wasmtime", &["marram-runtime"]),
    ("wasmtime-wasi", &["marram-runtime"]),
    ("wasmtime-wasi-http", &["marram-runtime"]),
    ("rusqlite", &["marram-store", "marram-telemetry"]),
    ("croner", &["marram-trigger"]),
    ("jiff", &["marram-trigger"]),
    ("rmqtt-codec", &["marram-mqtt"]),
    ("s3s", &["marram-s3"]),
    ("axum", &["marram-node"]),
    ("clap", &["marram"]),
];

/// Fails with every edge that points the wrong way.
pub(crate) fn check() -> anyhow::Result<()> {
    let metadata = crate::metadata(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package has no name")?;
        let Some(may) = allowed.get(name) else {
            wrong.push(format!("{name} is not in xtask/src/directions.rs: say there what it may depend on"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            if allowed.contains_key(on) && !may.contains(&on) {
                wrong.push(format!(
                    "{name} depends on {on}: siblings meet in marram-core's ports, and marram-node joins them"
                ));
            }
            let owners = OWNERS.iter().find(|(owned, _)| *owned == on).map(|(_, owners)| *owners);
            if owners.is_some_and(|owners| !owners.contains(&name)) {
                wrong.push(format!(
                    "{name} depends on {on}, which only {} may name",
                    owners.unwrap_or_default().join(" and ")
                ));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("dependencies point the wrong way:\n  {}", wrong.join("\n  "));
    }
    println!("directions: {} crates look the right way", packages.len());
    Ok(())
}
