//! `marram new`: each template becomes an app, and nothing is overwritten.

use std::path::{Path, PathBuf};

use marram_core::manifest::Manifest;

use crate::support::{folder, marram};

/// Files of a folder, by their paths within it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(inside) = open.pop() {
        for path in std::fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { open.push(path) } else { found.push(path.strip_prefix(folder).unwrap().to_owned()) }
        }
    }
    found.sort();
    found
}

fn templates() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../templates");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    std::fs::read_dir(folder).unwrap().map(name).collect()
}

#[tokio::test]
async fn each_template_becomes_an_app() {
    let templates = templates();
    for needed in ["http-rust", "http-python"] {
        assert!(templates.iter().any(|template| template == needed), "{needed} is not in {templates:?}");
    }
    for template in templates {
        let here = folder();
        let made = marram(&["new", "corner-shop", "--template", &template]).at(here.path()).run().await;
        let made = made.expect(0).without_data().says(&["made", "cd corner-shop && marram up"]);
        let app = here.path().join("corner-shop");
        let files = files(&app);
        for file in &files {
            assert!(made.stderr.contains(file.to_str().unwrap()), "{template}: {file:?} is not in {made:?}");
            assert_ne!(file.extension().and_then(|extension| extension.to_str()), Some("tmpl"), "{template}");
            let text = std::fs::read_to_string(app.join(file)).unwrap();
            assert!(!text.contains("{{name"), "{template}: {file:?} was not filled in");
        }
        let manifest = Manifest::parse(&std::fs::read_to_string(app.join("marram.toml")).unwrap())
            .unwrap_or_else(|error| panic!("{template}: {error}"));
        assert_eq!(manifest.app.name.as_str(), "corner-shop", "{template}");
        for function in &manifest.functions {
            let there = files.iter().any(|file| Path::new(&function.component) == file);
            assert!(there || function.build.is_some(), "{template}: {} comes from nowhere", function.component);
            assert!(!function.on.is_empty(), "{template}: {} has no route", function.name);
        }
    }
}

#[tokio::test]
async fn what_is_there_is_not_overwritten() {
    let here = folder();
    std::fs::create_dir(here.path().join("shop")).unwrap();
    std::fs::write(here.path().join("shop/app.py"), "mine").unwrap();
    std::fs::write(here.path().join("file"), "mine").unwrap();
    for taken in ["shop", "file"] {
        let refused = marram(&["new", taken, "--template", "http-python"]).at(here.path()).run().await;
        refused.expect(7).without_data().says(&[taken, "hint: "]);
    }
    assert_eq!(files(here.path()), [Path::new("file"), Path::new("shop/app.py")]);
    assert_eq!(std::fs::read_to_string(here.path().join("shop/app.py")).unwrap(), "mine");
    // An empty folder is as good as none.
    std::fs::create_dir(here.path().join("empty")).unwrap();
    marram(&["new", "empty", "--template", "http-python"]).at(here.path()).done().await;
    let inside = here.path().join("empty");
    let refused = marram(&["new", ".", "--template", "http-python"]).at(&inside).run().await;
    refused.expect(7);
}

#[tokio::test]
async fn a_name_and_a_template_have_to_be_ones() {
    let here = folder();
    let refused = marram(&["new", "My_Shop", "--template", "http-python"]).at(here.path()).run().await;
    refused.expect(2).without_data().says(&["My_Shop", "hint: give the app a name of its own with --name"]);
    let refused = marram(&["new", "shop", "--template", "http-cobol"]).at(here.path()).run().await;
    refused.expect(2).says(&["http-cobol", "http-python", "http-rust"]);
    assert_eq!(files(here.path()), [] as [PathBuf; 0]);
    marram(&["new", "My_Shop", "--name", "my-shop", "--template", "http-python"]).at(here.path()).done().await;
    let manifest = std::fs::read_to_string(here.path().join("My_Shop/marram.toml")).unwrap();
    assert!(manifest.contains("name = \"my-shop\""), "{manifest}");
}
