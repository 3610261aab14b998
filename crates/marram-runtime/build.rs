//! Puts the language engines into the binary, compressed. `make engines` builds them; without one, the build goes on
//! and functions in that language are refused with the reason.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

fn main() {
    println!("cargo::rerun-if-env-changed=MARRAM_ENGINES");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let engines = std::env::var_os("MARRAM_ENGINES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/engines"), PathBuf::from);
    for engine in ["js", "js-memory", "python"] {
        let source = engines.join(format!("{engine}.wasm"));
        println!("cargo::rerun-if-changed={}", source.display());
        let compressed = match std::fs::read(&source) {
            Ok(bytes) => zstd::encode_all(bytes.as_slice(), 10).expect("memory is enough"),
            Err(_) => {
                println!(
                    "cargo::warning=no {engine} engine at {}: run `make engines` for functions in that language",
                    source.display()
                );
                Vec::new()
            }
        };
        let digest: String = Sha256::digest(&compressed).iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(out.join(format!("{engine}.wasm.zst")), compressed).expect("OUT_DIR can be written");
        std::fs::write(out.join(format!("{engine}.digest")), format!("sha256:{digest}"))
            .expect("OUT_DIR can be written");
    }
}
