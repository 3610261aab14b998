//! `marram blob`: objects of a node's buckets.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::{Method, header};
use marram_node::api::{ObjectBuckets, ObjectView, Objects};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::cli::{JsonArgs, NodeArgs};
use crate::client::{self, Answer, Client, escape};
use crate::exit::{Exit, Problem};
use crate::output::{self, BOLD, DIM, GREEN, paint};
use crate::{progress, units};

/// Lists, stores, fetches and deletes objects, and makes buckets for them.
#[derive(Args, Debug)]
pub(crate) struct Blob {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List the objects of a bucket
    Ls {
        /// The bucket
        bucket: String,
        /// Only names that begin with this
        #[arg(long, default_value = "")]
        prefix: String,
        /// Everything below each `/` past the prefix as one line
        #[arg(long)]
        folders: bool,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Store a file as an object; it is on the disk when the command ends
    Put(Put),
    /// Fetch the content of an object
    Get {
        /// The bucket
        bucket: String,
        /// The object's name
        name: String,
        /// Where to; `-` for stdout. If left out, a file of the name's last part, here
        file: Option<PathBuf>,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Delete an object
    Rm {
        /// The bucket
        bucket: String,
        /// The object's name
        name: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// List the buckets, or make or delete one
    Buckets {
        /// Make this bucket
        #[arg(long, value_name = "BUCKET", conflicts_with = "delete")]
        create: Option<String>,
        /// Delete this bucket, which has to be empty
        #[arg(long, value_name = "BUCKET")]
        delete: Option<String>,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Print the access key that a node made for its S3 API, as a shell takes it: eval "$(marram blob key)"
    Key {
        /// The folder of the node's state
        #[arg(long, value_name = "DIR", default_value = ".marram")]
        state: PathBuf,
        /// The URL of the S3 API, to be printed with it
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
        #[command(flatten)]
        json: JsonArgs,
    },
}

#[derive(Args, Debug)]
struct Put {
    /// The bucket
    bucket: String,
    /// The object's name; if left out, the file's
    #[arg(long)]
    name: Option<String>,
    /// The file; `-` for stdin, which needs a name
    file: String,
    /// Its media type
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Only if there is no object of this name
    #[arg(long)]
    if_absent: bool,
    /// Only if the object has this etag, as `ls --json` shows it
    #[arg(long, value_name = "ETAG", conflicts_with = "if_absent")]
    if_etag: Option<String>,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    node: NodeArgs,
}

/// Does one of them.
pub(crate) async fn run(args: &Blob) -> anyhow::Result<()> {
    match &args.action {
        Action::Ls { bucket, prefix, folders, json, node } => {
            list(bucket, prefix, *folders, json.json, &Client::new(node)?).await
        }
        Action::Put(args) => put(args).await,
        Action::Get { bucket, name, file, node } => get(bucket, name, file.as_deref(), &Client::new(node)?).await,
        Action::Rm { bucket, name, node } => {
            let client = Client::new(node)?;
            client.send(Method::DELETE, &path(bucket, name), client::empty()).await?.ok().await?;
            output::message(&format!("{} {} in {bucket}", paint(GREEN, "deleted"), paint(BOLD, name)));
            Ok(())
        }
        Action::Buckets { create: Some(bucket), node, .. } => change(Method::PUT, bucket, "created", node).await,
        Action::Buckets { delete: Some(bucket), node, .. } => change(Method::DELETE, bucket, "deleted", node).await,
        Action::Buckets { json, node, .. } => buckets(json.json, &Client::new(node)?).await,
        Action::Key { state, endpoint, json } => key(state, endpoint.as_deref(), json.json),
    }
}

/// A name keeps its slashes in the path; everything else is escaped.
fn path(bucket: &str, name: &str) -> String {
    let name: Vec<_> = name.split('/').map(escape).collect();
    format!("/v1/objects/{}/{}", escape(bucket), name.join("/"))
}

async fn change(method: Method, bucket: &str, done: &str, node: &NodeArgs) -> anyhow::Result<()> {
    let path = format!("/v1/objects/{}", escape(bucket));
    Client::new(node)?.send(method, &path, client::empty()).await?.ok().await?;
    output::message(&format!("{} bucket {}", paint(GREEN, done), paint(BOLD, bucket)));
    Ok(())
}

async fn buckets(json: bool, client: &Client) -> anyhow::Result<()> {
    let answer = client.get("/v1/objects").await?;
    let list: ObjectBuckets = serde_json::from_value(answer).context("the node's answer is of another version")?;
    if list.buckets.is_empty() && !json {
        output::message("there is no bucket of objects yet: `marram blob buckets --create NAME` makes one");
    }
    list.buckets.iter().try_for_each(|bucket| {
        let line = if json { serde_json::to_string(bucket)? } else { bucket.bucket.clone() };
        Ok(output::line(&line)?)
    })
}

/// Page by page, as they are read.
async fn list(bucket: &str, prefix: &str, folders: bool, json: bool, client: &Client) -> anyhow::Result<()> {
    let (mut after, mut nothing) = (None, true);
    let such = if prefix.is_empty() { String::new() } else { format!(" whose name begins with {prefix:?}") };
    loop {
        let prefix = (!prefix.is_empty()).then(|| prefix.to_owned());
        let query = [("prefix", prefix), ("delimiter", folders.then(|| "/".to_owned())), ("after", after.take())];
        let answer = client.get(&client::with_query(&format!("/v1/objects/{}", escape(bucket)), &query)).await?;
        let page: Objects = serde_json::from_value(answer).context("the node's answer is of another version")?;
        for prefix in &page.prefixes {
            let line = if json { json!({ "prefix": prefix }).to_string() } else { format!("{:>10}  {prefix}", "") };
            output::line(&line)?;
        }
        page.objects.iter().try_for_each(|object| print(object, json))?;
        nothing &= page.objects.is_empty() && page.prefixes.is_empty();
        after = page.next;
        if after.is_some() {
            continue;
        }
        if nothing && !json {
            output::message(&format!("no object{such} in {bucket} yet: `marram blob put {bucket} FILE` stores one"));
        }
        return Ok(());
    }
}

fn print(object: &ObjectView, json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(output::line(&serde_json::to_string(object)?)?);
    }
    let size = paint(DIM, format!("{:>10}", units::bytes(object.size)));
    Ok(output::line(&format!("{size}  {}", object.name))?)
}

async fn put(args: &Put) -> anyhow::Result<()> {
    let client = Client::new(&args.node)?;
    let own = (args.file != "-").then(|| Path::new(&args.file).file_name()?.to_str()).flatten();
    let name = args
        .name
        .as_deref()
        .or(own)
        .ok_or_else(|| Problem::new(Exit::Usage, "the object needs a name").hint("write --name NAME"))?;
    let mut request = client.request(Method::PUT, &path(&args.bucket, name));
    if let Some(content_type) = &args.content_type {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    if args.if_absent {
        request = request.header(header::IF_NONE_MATCH, "*");
    }
    if let Some(etag) = &args.if_etag {
        request = request.header(header::IF_MATCH, format!("\"{}\"", etag.trim_matches('"')));
    }
    let request = if args.file == "-" {
        request.body(progress::stdin())?
    } else {
        let (file, size) = progress::open(&args.file).await?;
        let request = request.header(header::CONTENT_LENGTH, size);
        request.body(progress::upload(file, size, &format!("storing {name}")))?
    };
    let answer = client.exchange(request).await?.ok().await?.json().await?;
    if args.json.json {
        return Ok(output::line(&answer.to_string())?);
    }
    let stored: ObjectView = serde_json::from_value(answer).context("the node's answer is of another version")?;
    let size = paint(DIM, format!("({})", units::bytes(stored.size)));
    output::message(&format!("{} {} in {} {size}", paint(GREEN, "stored"), paint(BOLD, name), args.bucket));
    Ok(())
}

async fn get(bucket: &str, name: &str, file: Option<&Path>, client: &Client) -> anyhow::Result<()> {
    let answer = client.send(Method::GET, &path(bucket, name), client::empty()).await?.ok().await?;
    match file {
        Some(file) if file == Path::new("-") => to_stdout(answer).await,
        Some(file) => to_file(answer, file).await,
        None => {
            // The last part alone: a name never says in which folder of this machine something is written.
            let last = Path::new(name).file_name().map(PathBuf::from);
            let last = last.ok_or_else(|| {
                Problem::new(Exit::Usage, format!("{name:?} has no last part that could name a file"))
                    .hint("write the file's name after it, or - for stdout")
            })?;
            to_file(answer, &last).await
        }
    }
}

async fn to_stdout(mut answer: Answer) -> anyhow::Result<()> {
    while let Some(bytes) = answer.chunk().await? {
        output::bytes(&bytes)?;
    }
    Ok(())
}

/// Written beside it and then given its name: a file that is there is whole. What is no file, such as a device or a pipe, is
/// written into.
async fn to_file(answer: Answer, path: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let there = std::fs::metadata(path).ok();
    let size = if there.is_some_and(|there| !there.is_file()) {
        let file = std::fs::OpenOptions::new().write(true).open(path).with_context(cannot)?;
        copy(answer, file, cannot).await?
    } else {
        // Where a link leads to.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let partial = partial().tempfile_in(folder).with_context(cannot)?;
        let size = copy(answer, partial.reopen().with_context(cannot)?, cannot).await?;
        partial.persist(&path).with_context(cannot)?;
        size
    };
    let size = paint(DIM, format!("({})", units::bytes(size)));
    output::message(&format!("{} {} {size}", paint(GREEN, "fetched"), paint(BOLD, path.display())));
    Ok(())
}

/// A file of its own name, which is as others that are made here, and goes if it is not finished.
fn partial() -> tempfile::Builder<'static, 'static> {
    let mut partial = tempfile::Builder::new();
    partial.prefix(".marram-").suffix(".part");
    #[cfg(unix)]
    partial.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    partial
}

/// Returns how many bytes they were.
async fn copy(mut answer: Answer, file: std::fs::File, cannot: impl Fn() -> String) -> anyhow::Result<u64> {
    let (mut file, mut size) = (tokio::fs::File::from_std(file), 0);
    while let Some(bytes) = answer.chunk().await? {
        size += bytes.len() as u64;
        file.write_all(&bytes).await.with_context(&cannot)?;
    }
    file.flush().await.with_context(&cannot)?;
    Ok(size)
}

/// Read from the state folder and not over the API, which shows no secrets: who can read the file may have it.
fn key(state: &Path, endpoint: Option<&str>, json: bool) -> anyhow::Result<()> {
    let key = marram_node::own_s3_key(state)
        .map_err(|error| Problem::new(Exit::NotFound, format!("{error:#}")).hint("name the folder with --state"))?;
    if json {
        let shown = json!({ "access_key_id": key.id, "secret_access_key": key.secret, "endpoint": endpoint });
        return Ok(output::line(&shown.to_string())?);
    }
    output::line(&format!("export AWS_ACCESS_KEY_ID={}", key.id))?;
    output::line(&format!("export AWS_SECRET_ACCESS_KEY={}", key.secret))?;
    output::line("export AWS_DEFAULT_REGION=us-east-1")?;
    if let Some(endpoint) = endpoint {
        output::line(&format!("export AWS_ENDPOINT_URL_S3={endpoint}"))?;
    }
    Ok(())
}
