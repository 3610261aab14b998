//! `marram reference`: the pages of the book that derive from the code.

use clap::{Args, ValueEnum};

use crate::output;
use crate::reference;

/// Prints a reference page of the book, as Markdown.
#[derive(Args, Debug)]
pub(crate) struct Reference {
    /// Which page
    #[arg(value_enum, default_value = "cli")]
    page: Page,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Page {
    /// Every verb, flag and exit code
    Cli,
    /// Every key of `marram.toml`
    Manifest,
    /// The JSON schema of `marram.toml`, for editors
    Schema,
    /// Every limit and every kind of failure
    Limits,
}

/// Prints it.
pub(crate) fn run(args: &Reference) -> anyhow::Result<()> {
    let page = match args.page {
        Page::Cli => reference::cli::page(),
        Page::Manifest => reference::manifest::page()?,
        Page::Schema => format!("{:#}\n", serde_json::to_value(marram_core::manifest::schema())?),
        Page::Limits => reference::limits::page()?,
    };
    Ok(output::bytes(page.as_bytes())?)
}
