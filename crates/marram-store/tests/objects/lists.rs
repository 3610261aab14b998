//! Lists: every page against what a plain computation over all names says.

use std::collections::BTreeSet;

use marram_core::port::Blobs as _;
use marram_core::port::blobs::{ListQuery, Listed};
use marram_store::Objects;

use crate::support::name;
use crate::{fresh, put};

/// What a list is, said in another way: names cut at the delimiter, each once, in order.
fn expected(names: &[&str], prefix: &str, delimiter: &str) -> Vec<String> {
    let cut = |name: &&str| {
        let rest = name.strip_prefix(prefix)?;
        let end = (!delimiter.is_empty()).then(|| rest.find(delimiter)).flatten();
        Some(end.map_or((*name).to_owned(), |at| format!("{prefix}{}", &rest[..at + delimiter.len()])))
    };
    names.iter().filter_map(cut).collect::<BTreeSet<_>>().into_iter().collect()
}

async fn pages(objects: &Objects, prefix: &str, delimiter: &str, max: usize) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let delimiter = (!delimiter.is_empty()).then(|| delimiter.to_owned());
        let query = ListQuery { prefix: prefix.into(), after: after.take(), delimiter, max };
        let page = objects.list(&name("b"), query).await.unwrap();
        assert!(page.entries.len() <= max);
        found.extend(page.entries.iter().map(|entry| entry.name().to_owned()));
        if !page.more {
            return found;
        }
        after = page.entries.last().map(|entry| entry.name().to_owned());
    }
}

#[tokio::test]
async fn every_page_size_prefix_and_delimiter_gives_the_same_list() {
    let (_dir, _store, objects, _) = fresh().await;
    let mut names = vec![
        "a",
        "a/",
        "a/b",
        "a/b/c",
        "a/b/d",
        "a0",
        "b//c",
        "b/",
        "ab",
        "ä/ö",
        "ä/ü",
        "c--d",
        "c--e--f",
        "\u{10ffff}/x",
    ];
    // The last is no name, being a noncharacter; the one before it sorts last.
    assert!(objects.put(&name("b"), "\u{10ffff}/x", Default::default()).await.is_err());
    names.pop();
    names.push("\u{10fffd}/x");
    for key in &names {
        put(&objects, key, b"1").await;
    }
    for prefix in ["", "a", "a/", "a/b", "ä", "b/", "c", "none", "\u{10fffd}"] {
        for delimiter in ["", "/", "--", "b", "ö"] {
            for max in [1, 2, 3, 100] {
                let found = pages(&objects, prefix, delimiter, max).await;
                assert_eq!(found, expected(&names, prefix, delimiter), "{prefix:?} {delimiter:?} {max}");
            }
        }
    }
}

#[tokio::test]
async fn a_list_goes_on_after_any_name_and_after_a_prefix() {
    let (_dir, _store, objects, _) = fresh().await;
    for key in ["a/1", "a/2", "b", "c/1"] {
        put(&objects, key, b"1").await;
    }
    let list = async |after: &str, delimiter: Option<&str>| {
        let delimiter = delimiter.map(str::to_owned);
        let query = ListQuery { after: Some(after.into()), delimiter, max: 10, ..ListQuery::default() };
        objects.list(&name("b"), query).await.unwrap().entries
    };
    let names = |entries: Vec<Listed>| entries.iter().map(|entry| entry.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(list("a/1", None).await), ["a/2", "b", "c/1"]);
    assert_eq!(names(list("a/", Some("/")).await), ["b", "c/"]);
    assert_eq!(names(list("a/1", Some("/")).await), ["a/", "b", "c/"]);
    assert_eq!(names(list("zz", Some("/")).await), Vec::<String>::new());
}
