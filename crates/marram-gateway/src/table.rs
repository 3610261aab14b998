//! The routing table: which target takes a request, by host, path and method.
//!
//! A tree of path segments for each host, walked from the most specific branch to the least. A method belongs to the
//! match: a route that does not take it does not hide a less specific one that does. Look-ups allocate nothing, except
//! to say which methods a path would have taken.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderName, Method};
use marram_core::FunctionId;
use marram_core::port::Invoke;
use marram_core::route::{RoutePattern, SEGMENTS_MAX, Segment};

/// One way to a function.
#[derive(Clone)]
pub struct Route {
    /// Host and path.
    pub pattern: RoutePattern,
    /// Only these methods; all of them if empty. `HEAD` comes with `GET`.
    pub methods: Vec<Method>,
    /// What runs.
    pub target: Arc<Target>,
}

/// A function behind routes. All routes of a function share one.
pub struct Target {
    /// What runs.
    pub invoke: Arc<dyn Invoke>,
    /// Bytes of a request body.
    pub body_bytes_max: u64,
}

/// Why a table cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Two functions claim the same requests.
    #[error("functions {first} and {second} both claim {pattern}: change the path, host or methods of one")]
    Claimed {
        /// The route that both claim.
        pattern: RoutePattern,
        /// The one that came first.
        first: Arc<FunctionId>,
        /// The other.
        second: Arc<FunctionId>,
    },
}

/// Routes, immutable. The default one is empty.
#[derive(Default)]
pub struct Table {
    hosts: HashMap<Box<str>, Node>,
    any_host: Node,
    routes: usize,
}

/// What a look-up found.
pub enum Found<'t> {
    /// This target. Its parameters are in the [`Captures`].
    Target(&'t Arc<Target>, &'t [HeaderName]),
    /// The path matches, but only with the methods of this `allow` header.
    OtherMethods(String),
    /// No route matches.
    Nothing,
}

/// Where the parameters of a match are in its path.
pub struct Captures {
    ranges: [(u32, u32); SEGMENTS_MAX],
    len: usize,
}

#[derive(Default)]
struct Node {
    /// Sorted by segment.
    literals: Vec<(Box<str>, Node)>,
    param: Option<Box<Node>>,
    exact: Leaf,
    tail: Leaf,
}

/// Routes with one pattern, told apart by method.
#[derive(Default)]
struct Leaf {
    some: Vec<(Vec<Method>, Entry)>,
    any: Option<Entry>,
}

struct Entry {
    target: Arc<Target>,
    /// `marram-param-<name>` for each parameter, from the left.
    params: Box<[HeaderName]>,
}

impl Target {
    /// A target for all routes of one function.
    #[must_use]
    pub fn new(invoke: Arc<dyn Invoke>, body_bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { invoke, body_bytes_max })
    }
}

impl Table {
    /// Builds a table, unless two routes claim the same requests.
    pub fn build(routes: impl IntoIterator<Item = Route>) -> Result<Self, TableError> {
        let mut table = Self::default();
        for route in routes {
            let root = match &route.pattern.host {
                Some(host) => table.hosts.entry(host.as_str().into()).or_default(),
                None => &mut table.any_host,
            };
            root.insert(route)?;
            table.routes += 1;
        }
        Ok(table)
    }

    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes == 0
    }

    /// The target for `method` on `host` (without a port, in any case) and `path` (without a query).
    pub fn find(&self, host: &str, path: &str, method: &Method, captures: &mut Captures) -> Found<'_> {
        let mut walk = Walk { path, method, captures, allow: Vec::new() };
        let rest = match path.strip_prefix('/') {
            Some("") => None,
            Some(_) => Some(1),
            None => return Found::Nothing, // `*`
        };
        let hosted = (!self.hosts.is_empty()).then(|| self.host(host)).flatten();
        for root in hosted.into_iter().chain([&self.any_host]) {
            walk.captures.len = 0;
            if let Some(entry) = walk.descend(root, rest) {
                return Found::Target(&entry.target, &entry.params);
            }
        }
        if walk.allow.is_empty() { Found::Nothing } else { Found::OtherMethods(allow_header(walk.allow)) }
    }

    fn host(&self, host: &str) -> Option<&Node> {
        // With the dot that ends an absolute name it is the same host; patterns have none.
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.bytes().any(|b| b.is_ascii_uppercase()) {
            return self.hosts.get(host.to_ascii_lowercase().as_str());
        }
        self.hosts.get(host)
    }
}

impl Node {
    fn insert(&mut self, route: Route) -> Result<(), TableError> {
        let mut node = self;
        for segment in &route.pattern.segments {
            node = match segment {
                Segment::Param(_) => node.param.get_or_insert_default(),
                Segment::Literal(text) => {
                    let at = match node.literals.binary_search_by(|(name, _)| (**name).cmp(text)) {
                        Ok(at) => at,
                        Err(at) => {
                            node.literals.insert(at, (text.as_str().into(), Self::default()));
                            at
                        }
                    };
                    &mut node.literals[at].1
                }
            };
        }
        let leaf = if route.pattern.tail { &mut node.tail } else { &mut node.exact };
        leaf.insert(route)
    }
}

impl Leaf {
    fn insert(&mut self, route: Route) -> Result<(), TableError> {
        let rival = if route.methods.is_empty() {
            self.any.as_ref()
        } else {
            let meets = |taken: &[Method]| taken.iter().any(|method| route.methods.contains(method));
            self.some.iter().find(|(taken, _)| meets(taken)).map(|(_, entry)| entry)
        };
        if let Some(rival) = rival {
            return Err(TableError::Claimed {
                pattern: route.pattern,
                first: rival.target.invoke.id().clone(),
                second: route.target.invoke.id().clone(),
            });
        }
        let params = route.pattern.segments.iter().filter_map(Segment::param).map(param_header).collect();
        let entry = Entry { target: route.target, params };
        if route.methods.is_empty() {
            self.any = Some(entry);
        } else {
            self.some.push((route.methods, entry));
        }
        Ok(())
    }

    /// A route that names the method, before `GET` for a `HEAD`, before a route for all methods.
    fn take(&self, method: &Method) -> Option<&Entry> {
        let named =
            |wanted: &Method| self.some.iter().find(|(taken, _)| taken.contains(wanted)).map(|(_, entry)| entry);
        let as_get = || if method == Method::HEAD { named(&Method::GET) } else { None };
        named(method).or_else(as_get).or(self.any.as_ref())
    }
}

/// One look-up on its way. Each node of the tree is visited once at most.
struct Walk<'a> {
    path: &'a str,
    method: &'a Method,
    captures: &'a mut Captures,
    allow: Vec<Method>,
}

impl Walk<'_> {
    /// `rest` is where the next segment starts; `None` is the end of the path.
    fn descend<'t>(&mut self, node: &'t Node, rest: Option<usize>) -> Option<&'t Entry> {
        let Some(start) = rest else {
            return self.take(&node.exact).or_else(|| self.take(&node.tail));
        };
        if !node.literals.is_empty() || node.param.is_some() {
            let path = self.path;
            let slash = path.as_bytes()[start..].iter().position(|b| *b == b'/').map(|at| start + at);
            let end = slash.unwrap_or(path.len());
            let segment = &path[start..end];
            let next = slash.map(|slash| slash + 1);
            if let Ok(at) = node.literals.binary_search_by(|(name, _)| (**name).cmp(segment))
                && let Some(entry) = self.descend(&node.literals[at].1, next)
            {
                return Some(entry);
            }
            if let Some(param) = &node.param
                && !segment.is_empty()
            {
                let kept = self.captures.len;
                self.captures.push(start, end);
                if let Some(entry) = self.descend(param, next) {
                    return Some(entry);
                }
                self.captures.len = kept;
            }
        }
        self.take(&node.tail)
    }

    fn take<'t>(&mut self, leaf: &'t Leaf) -> Option<&'t Entry> {
        let entry = leaf.take(self.method);
        if entry.is_none() {
            self.allow.extend(leaf.some.iter().flat_map(|(methods, _)| methods.iter().cloned()));
        }
        entry
    }
}

impl Default for Captures {
    fn default() -> Self {
        Self { ranges: [(0, 0); SEGMENTS_MAX], len: 0 }
    }
}

impl Captures {
    /// The captured segments of `path`, from the left.
    pub fn of<'p>(&self, path: &'p str) -> impl Iterator<Item = &'p str> {
        self.ranges[..self.len].iter().map(move |(start, end)| &path[*start as usize..*end as usize])
    }

    fn push(&mut self, start: usize, end: usize) {
        // The length of a path is limited far below 4 GiB, and a pattern's depth is `SEGMENTS_MAX`.
        self.ranges[self.len] = (start as u32, end as u32);
        self.len += 1;
    }
}

fn param_header(name: &str) -> HeaderName {
    HeaderName::try_from(format!("marram-param-{name}")).expect("a parameter's name is a token in lower case")
}

/// `GET, HEAD, POST`: in alphabetical order, each once.
fn allow_header(mut methods: Vec<Method>) -> String {
    if methods.contains(&Method::GET) {
        methods.push(Method::HEAD);
    }
    methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    methods.dedup();
    methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
}
