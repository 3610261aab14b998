//! `marram kv`: keys of a node's buckets.

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::{Method, header};
use marram_core::port::blobs::shown;
use marram_core::quantity::Span;
use marram_node::api::{KeyBuckets, Keys, WatchLine};
use serde_json::json;

use crate::cli::{JsonArgs, NodeArgs};
use crate::client::{self, Client, escape};
use crate::data;
use crate::exit::{Exit, Problem};
use crate::output::{self, BOLD, DIM, GREEN, YELLOW, on_one_line, paint};

/// Reads, sets, lists and watches keys.
#[derive(Args, Debug)]
pub(crate) struct Kv {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Print the value of a key as it is
    Get {
        /// The bucket
        bucket: String,
        /// The key
        key: String,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Set a key; it is on the disk when the command ends
    Set(Set),
    /// Remove a key
    Rm {
        /// The bucket
        bucket: String,
        /// The key
        key: String,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// List the keys of a bucket, or the buckets
    Ls {
        /// The bucket
        bucket: Option<String>,
        /// Only keys that begin with this
        #[arg(long, default_value = "", requires = "bucket")]
        prefix: String,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Print changes of keys as they happen
    Watch {
        /// The bucket
        bucket: String,
        /// Only keys that begin with this
        #[arg(long, default_value = "")]
        prefix: String,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[derive(Args, Debug)]
struct Set {
    /// The bucket
    bucket: String,
    /// The key
    key: String,
    /// The value: text, `@file`, or `@-` for stdin
    value: String,
    /// After this long the key goes away, such as 30s
    #[arg(long, value_name = "SPAN", value_parser = ttl)]
    ttl: Option<Span>,
    /// Only if the key is not there
    #[arg(long)]
    if_absent: bool,
    /// Only if the key has this version, as `get --json` shows it
    #[arg(long, value_name = "VERSION", conflicts_with = "if_absent")]
    if_version: Option<String>,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    node: NodeArgs,
}

/// How long a key may live: the longest that a [`Span`] has room for, and not nothing.
fn ttl(text: &str) -> Result<Span, String> {
    const DAYS_MAX: u64 = u64::MAX / (24 * 60 * 60 * 1_000_000_000);
    let text = text.trim();
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    match text.parse::<Span>() {
        Ok(span) if span.0.is_zero() => Err("a key that is set stays for a while: write more, such as 30s".to_owned()),
        Ok(span) => Ok(span),
        // With a 1 instead of its number it is a span.
        Err(_) if unit.len() < text.len() && format!("1{unit}").parse::<Span>().is_ok() => {
            Err(format!("the longest is {DAYS_MAX}d: leave --ttl out for a key that stays"))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Does one of them.
pub(crate) async fn run(args: &Kv) -> anyhow::Result<()> {
    match &args.action {
        Action::Get { bucket, key, json, node } => get(bucket, key, json.json, &Client::new(node)?).await,
        Action::Set(args) => set(args).await,
        Action::Rm { bucket, key, json, node } => remove(bucket, key, json.json, &Client::new(node)?).await,
        Action::Ls { bucket: Some(bucket), prefix, json, node } => {
            list(bucket, prefix, json.json, &Client::new(node)?).await
        }
        Action::Ls { bucket: None, json, node, .. } => buckets(json.json, &Client::new(node)?).await,
        Action::Watch { bucket, prefix, json, node } => watch(bucket, prefix, json.json, &Client::new(node)?).await,
    }
}

/// A key keeps its slashes in the path; everything else is escaped.
fn path(bucket: &str, key: &str) -> String {
    let key: Vec<_> = key.split('/').map(escape).collect();
    format!("/v1/kv/{}/keys/{}", escape(bucket), key.join("/"))
}

async fn get(bucket: &str, key: &str, json: bool, client: &Client) -> anyhow::Result<()> {
    let mut answer = client.send(Method::GET, &path(bucket, key), client::empty()).await?.ok().await?;
    let header = |name: &str| answer.head().headers().get(name).and_then(|value| value.to_str().ok());
    let version = header("etag").map(|tag| tag.trim_matches('"').to_owned());
    let expires = header("expires-at").map(str::to_owned);
    let (mut value, mut last) = (Vec::new(), Bytes::new());
    while let Some(bytes) = answer.chunk().await? {
        if json {
            value.extend_from_slice(&bytes);
        } else {
            output::bytes(&bytes)?;
            last = bytes;
        }
    }
    if !json {
        return Ok(output::end_line(&last)?);
    }
    let mut shown = json!({ "bucket": bucket, "key": key, "version": version });
    match String::from_utf8(value) {
        Ok(text) => shown["text"] = text.into(),
        Err(binary) => shown["base64"] = BASE64_STANDARD.encode(binary.into_bytes()).into(),
    }
    if let Some(expires) = expires {
        shown["expires"] = expires.into();
    }
    Ok(output::line(&shown.to_string())?)
}

async fn set(args: &Set) -> anyhow::Result<()> {
    let client = Client::new(&args.node)?;
    let url = client::with_query(&path(&args.bucket, &args.key), &[("ttl", args.ttl.map(|span| span.to_string()))]);
    let mut request = client.request(Method::PUT, &url);
    if args.if_absent {
        request = request.header(header::IF_NONE_MATCH, "*");
    } else if let Some(version) = &args.if_version {
        check_version(args, version)?;
        request = request.header(header::IF_MATCH, format!("\"{version}\""));
    }
    let answer = client.exchange(request.body(data::body(Some(&args.value)).await?)?).await?.ok().await;
    let answer = answer.with_context(|| format!("cannot set {} in {}", shown(&args.key), args.bucket))?;
    let written = answer.json().await?;
    if args.json.json {
        return Ok(output::line(&written.to_string())?);
    }
    output::message(&format!("{} {} in {}", paint(GREEN, "set"), paint(BOLD, &args.key), args.bucket));
    Ok(())
}

/// As it is shown: 16 bytes in hex digits.
fn check_version(args: &Set, version: &str) -> Result<(), Problem> {
    if version.len() == 32 && version.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    let shown = format!("`marram kv get {} {} --json` shows it", args.bucket, args.key);
    Err(Problem::new(Exit::Invalid, format!("{version:?} is not a version of a key")).hint(shown))
}

async fn remove(bucket: &str, key: &str, json: bool, client: &Client) -> anyhow::Result<()> {
    let answer = client.send(Method::DELETE, &path(bucket, key), client::empty()).await?.ok().await?;
    let written = answer.json().await?;
    if json {
        return Ok(output::line(&written.to_string())?);
    }
    let was_there = !written["version"].is_null();
    let verb = if was_there { paint(GREEN, "removed") } else { paint(YELLOW, "was not there:") };
    output::message(&format!("{verb} {} in {bucket}", paint(BOLD, key)));
    Ok(())
}

async fn buckets(json: bool, client: &Client) -> anyhow::Result<()> {
    let answer = client.get("/v1/kv").await?;
    let list: KeyBuckets = serde_json::from_value(answer).context("the node's answer is of another version")?;
    if list.buckets.is_empty() && !json {
        output::message("no bucket has a key yet");
    }
    list.buckets.iter().try_for_each(|bucket| print("bucket", bucket, json))
}

/// Page by page, as they are read.
async fn list(bucket: &str, prefix: &str, json: bool, client: &Client) -> anyhow::Result<()> {
    let (mut after, mut nothing) = (None, true);
    loop {
        let query = [("prefix", (!prefix.is_empty()).then(|| prefix.to_owned())), ("after", after.take())];
        let answer = client.get(&client::with_query(&format!("/v1/kv/{}", escape(bucket)), &query)).await?;
        let page: Keys = serde_json::from_value(answer).context("the node's answer is of another version")?;
        page.keys.iter().try_for_each(|key| print("key", key, json))?;
        nothing &= page.keys.is_empty();
        after = page.keys.last().cloned();
        if page.more && after.is_some() {
            continue;
        }
        // A bucket of keys is there with its first key: that there is none is no mistake.
        if nothing && !json {
            let such = if prefix.is_empty() { String::new() } else { format!(" that begins with {prefix:?}") };
            output::message(&format!("no key{such} in {bucket} yet: `marram kv ls` lists the buckets that have keys"));
        }
        return Ok(());
    }
}

fn print(what: &str, name: &str, json: bool) -> anyhow::Result<()> {
    let line = if json { json!({ what: name }).to_string() } else { name.to_owned() };
    Ok(output::line(&line)?)
}

async fn watch(bucket: &str, prefix: &str, json: bool, client: &Client) -> anyhow::Result<()> {
    let query = [("prefix", (!prefix.is_empty()).then(|| prefix.to_owned()))];
    let url = client::with_query(&format!("/v1/kv/{}/watch", escape(bucket)), &query);
    let mut answer = client.send(Method::GET, &url, client::empty()).await?.ok().await?;
    while let Some(line) = answer.line().await? {
        if json {
            output::bytes(&[&line[..], b"\n"].concat())?;
            continue;
        }
        match serde_json::from_slice(&line).context("the node sent a line that is no change")? {
            WatchLine::Change(change) => {
                let value = change.text.or_else(|| change.base64.map(|bytes| format!("base64 {bytes}")));
                let [key, value] = [change.key, value.unwrap_or_default()].map(|text| on_one_line(&text).into_owned());
                let event = paint(DIM, format!("{:8}", change.event));
                output::line(&format!("{event} {}  {value}", paint(BOLD, key)))?;
            }
            WatchLine::Missed(missed) => output::warning(&format!("{} changes went by unseen", missed.missed)),
        }
    }
    anyhow::bail!("the node ended the watch: it has stopped or was drained")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_lives_for_a_while() {
        for text in ["1ms", "30s", "213503d"] {
            assert!(ttl(text).is_ok(), "{text}");
        }
        let cases = [
            ("0s", "30s"),
            ("213504d", "the longest is 213503d"),
            ("99999999999999999999999h", "the longest is 213503d"),
            ("1 day", "not a duration"),
            ("d", "not a duration"),
        ];
        for (text, why) in cases {
            assert!(ttl(text).is_err_and(|error| error.contains(why)), "{text}: {:?}", ttl(text));
        }
    }
}
