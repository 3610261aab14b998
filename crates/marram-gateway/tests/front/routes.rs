//! The table against the rule, told naively: of all routes that match, the most specific one.

use std::sync::Arc;

use http::Method;
use marram_core::route::{RoutePattern, Segment};
use marram_gateway::{Captures, Found, Route, Table, TableError, Target};
use proptest::prelude::*;

use crate::support::*;

fn route(pattern: &str, methods: &[Method]) -> Route {
    let name: String = format!("f{}", pattern.bytes().map(|b| char::from(b'a' + b % 26)).collect::<String>());
    let target = Target::new(fake(&name[..name.len().min(60)], |_, _| std::future::pending()), 0);
    Route { pattern: RoutePattern::parse(pattern).expect(pattern), methods: methods.to_vec(), target }
}

/// The patterns of `routes` (with methods after a space) that `asks` find: `-` is none, `!GET` is other methods.
#[track_caller]
fn check(routes: &[&str], asks: &[(&str, &str)]) {
    let routes: Vec<Route> = routes.iter().map(|text| parse(text)).collect();
    let table = Table::build(routes.clone()).expect("a table");
    assert_eq!(table.len(), routes.len());
    for (ask, expected) in asks {
        assert_eq!(find(&table, &routes, ask), *expected, "for {ask}");
    }
}

fn parse(text: &str) -> Route {
    let (pattern, methods) = text.split_once(' ').unwrap_or((text, ""));
    let methods: Vec<Method> = methods.split_whitespace().map(|m| m.parse().expect(m)).collect();
    route(pattern, &methods)
}

/// `METHOD host/path`, as the pattern that takes it and what it captures.
fn find(table: &Table, routes: &[Route], ask: &str) -> String {
    let (method, rest) = ask.split_once(' ').unwrap_or(("GET", ask));
    let (host, path) = rest.split_at(rest.find('/').expect("a path"));
    let mut captures = Captures::default();
    match table.find(host, path, &method.parse().expect(method), &mut captures) {
        Found::Nothing => "-".into(),
        Found::OtherMethods(allow) => format!("!{allow}"),
        Found::Target(target, params) => {
            let taken = routes.iter().find(|route| Arc::ptr_eq(&route.target, target)).expect("one of them");
            let values = params
                .iter()
                .zip(captures.of(path))
                .map(|(name, value)| format!(" {}={value}", name.as_str().trim_start_matches("marram-param-")));
            format!("{:?}{}", taken.pattern, values.collect::<String>())
        }
    }
}

#[test]
fn the_most_specific_route_wins() {
    check(
        &["/", "/...", "/a", "/a/", "/a/b/...", "/a/:x/c", "/:x/b/c", "h.example/...", "h.example/a/:id"],
        &[
            ("/", "/"),
            ("/z", "/..."),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a/b", "/a/b/..."),
            ("/a/b/", "/a/b/..."),
            ("/a/b/c", "/a/b/..."),
            ("/a/z/c", "/a/:x/c x=z"),
            ("/z/b/c", "/:x/b/c x=z"),
            ("/a/z/d", "/..."),
            ("/z/b", "/..."),
            ("//", "/..."),
            ("h.example/a", "h.example/..."),
            ("H.Example/a/7", "h.example/a/:id id=7"),
            ("H.Example./a/7", "h.example/a/:id id=7"),
            ("h.example/a/", "h.example/..."),
            ("other/a", "/a"),
        ],
    );
    check(&["h/a", "/b"], &[("h/b", "/b"), ("h/a", "h/a"), ("h/c", "-"), ("x/a", "-"), ("h/", "-")]);
    check(
        &["h.example./a", "/..."],
        &[("h.example/a", "h.example/a"), ("H.example./a", "h.example/a"), ("./a", "/...")],
    );
    check(&["/a/b", "/:x/..."], &[("/a/b", "/a/b"), ("/a/c", "/:x/... x=a"), ("/", "-"), ("//a", "-")]);
}

#[test]
fn a_method_belongs_to_the_match() {
    check(
        &["/a GET", "/a POST PUT", "/:x", "/b GET", "/b/... HEAD", "h/c DELETE"],
        &[
            ("GET /a", "/a"),
            ("HEAD /a", "/a"),
            ("PUT /a", "/a"),
            ("DELETE /a", "/:x x=a"),
            ("HEAD /b", "/b"),
            ("DELETE h/c", "h/c"),
            ("GET h/c", "/:x x=c"),
            ("GET /b/x", "!HEAD"),
        ],
    );
    check(&["/a GET", "/... POST"], &[("PUT /a", "!GET, HEAD, POST"), ("POST /a", "/..."), ("GET /b", "!POST")]);
    check(&["/a GET", "/a"], &[("GET /a", "/a"), ("PUT /a", "/a"), ("HEAD /a", "/a")]);
}

#[test]
fn a_route_that_two_claim_is_refused() {
    let claimed = |routes: &[&str]| Table::build(routes.iter().map(|text| parse(text))).err();
    let Some(TableError::Claimed { pattern, first, second }) = claimed(&["/api/:id", "/other", "/api/:name"]) else {
        panic!("it was taken")
    };
    assert_eq!(pattern.to_string(), "/api/:name");
    assert_ne!(first, second);
    let told = TableError::Claimed { pattern, first: first.clone(), second: second.clone() }.to_string();
    assert_has(&told, &["/api/:name", &first.to_string(), &second.to_string()]);
    assert!(claimed(&["/a GET POST", "/a POST"]).is_some());
    assert!(claimed(&["/a GET", "/a POST", "/a", "/a/...", "/a/", "h/a"]).is_none());
    assert!(claimed(&["h/a", "H/a"]).is_some());
    assert!(claimed(&["h/a", "h./a"]).is_some());
}

/// How specific a match is: host, then each segment from the left, then the end.
fn naive(routes: &[Route], host: &str, path: &str) -> Option<usize> {
    let segments: Vec<&str> = if path == "/" { Vec::new() } else { path[1..].split('/').collect() };
    let rank = |pattern: &RoutePattern| -> Option<Vec<u8>> {
        let hosted = match &pattern.host {
            Some(wanted) if wanted == host => 0,
            Some(_) => return None,
            None => 1,
        };
        let enough = pattern.segments.len() <= segments.len();
        if !enough || (!pattern.tail && pattern.segments.len() != segments.len()) {
            return None;
        }
        let mut rank = vec![hosted];
        for (segment, got) in pattern.segments.iter().zip(&segments) {
            rank.push(match segment {
                Segment::Literal(text) if text == got => 0,
                Segment::Param(_) if !got.is_empty() => 1,
                _ => return None,
            });
        }
        rank.push(if pattern.tail { 2 } else { 0 });
        Some(rank)
    };
    (0..routes.len()).filter_map(|at| rank(&routes[at].pattern).map(|rank| (rank, at))).min().map(|(_, at)| at)
}

fn pattern() -> impl Strategy<Value = String> {
    let segment = prop_oneof![Just("a"), Just("b"), Just(""), Just(":x")];
    let host = prop_oneof![2 => Just(""), 1 => Just("h")];
    (host, proptest::collection::vec(segment, 0..5), any::<bool>()).prop_filter_map(
        "a pattern",
        |(host, segments, tail)| {
            let mut named = 0;
            let mut text = host.to_owned();
            for segment in segments {
                text.push('/');
                text.push_str(segment);
                if segment == ":x" {
                    text.push_str(&named.to_string());
                    named += 1;
                }
            }
            text.push_str(if tail {
                "/..."
            } else if text == host {
                "/"
            } else {
                ""
            });
            RoutePattern::parse(&text).ok().map(|pattern| pattern.to_string())
        },
    )
}

proptest! {
    #[test]
    fn finds_what_the_rule_says(
        patterns in proptest::collection::vec(pattern(), 0..12),
        paths in proptest::collection::vec(proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c"), Just("")], 1..6), 1..12),
    ) {
        let mut routes: Vec<Route> = Vec::new();
        for pattern in patterns {
            let route = route(&pattern, &[]);
            if !routes.iter().any(|other| other.pattern.claims_the_same_as(&route.pattern)) {
                routes.push(route);
            }
        }
        let table = Table::build(routes.clone()).expect("no two claim the same");
        for (host, segments) in ["h", "other"].into_iter().flat_map(|host| paths.iter().map(move |path| (host, path))) {
            let path = format!("/{}", segments.join("/"));
            let mut captures = Captures::default();
            let found = match table.find(host, &path, &Method::GET, &mut captures) {
                Found::Target(target, params) => {
                    let at = routes.iter().position(|route| Arc::ptr_eq(&route.target, target));
                    prop_assert_eq!(params.len(), captures.of(&path).count());
                    at
                }
                _ => None,
            };
            prop_assert_eq!(found, naive(&routes, host, &path), "{}{}", host, path);
        }
    }
}
