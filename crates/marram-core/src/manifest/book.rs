//! The manifests in the book are what it says they are.

use super::*;

/// Every TOML block of a page, as a whole manifest.
fn manifests(page: &str) -> Vec<String> {
    let blocks = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let whole = |block: &str| {
        if block.contains("manifest_version") {
            block.to_owned()
        } else {
            format!("manifest_version = 1\n[app]\nname = \"plant\"\n{block}")
        }
    };
    blocks.map(whole).collect()
}

#[test]
fn the_manifests_of_the_pages_on_events_and_streams() {
    let pages = [
        (include_str!("../../../../docs/book/src/functions/events.md"), 2),
        (include_str!("../../../../docs/book/src/streams.md"), 3),
    ];
    for (page, blocks) in pages {
        let manifests = manifests(page);
        assert_eq!(manifests.len(), blocks);
        for text in manifests {
            Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        }
    }
}
