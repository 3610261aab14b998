//! `marram new`: an app from a template.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};
use marram_core::Name;

use crate::exit::{Exit, Problem};
use crate::output::{self, BOLD, DIM, GREEN, paint};
use crate::template::{TEMPLATES, Template};

/// Makes a new app in a new folder.
#[derive(Args, Debug)]
pub(crate) struct New {
    /// The folder to make; its name becomes the app's
    dir: PathBuf,
    /// Language and kind of the app
    #[arg(long, short, value_parser = templates())]
    template: String,
    /// The app's name, if it is not the folder's
    #[arg(long)]
    name: Option<Name>,
}

fn templates() -> PossibleValuesParser {
    PossibleValuesParser::new(TEMPLATES.iter().map(|template| PossibleValue::new(template.name).help(template.about())))
}

/// Writes the files and says what to do next.
pub(crate) fn run(args: &New) -> anyhow::Result<()> {
    let name = args.name.clone().map_or_else(|| name_of(&args.dir), Ok)?;
    let shown = args.dir.display();
    if std::fs::read_dir(&args.dir).is_ok_and(|mut entries| entries.next().is_some()) || args.dir.is_file() {
        return Err(Problem::new(Exit::Conflict, format!("{shown} is there already, and is not empty"))
            .hint("name a folder that is not there yet")
            .into());
    }
    let template = Template::find(&args.template)
        .ok_or_else(|| Problem::new(Exit::Usage, format!("no template {:?}", args.template)))?;
    let written = template.write(&args.dir, &name)?;
    output::message(&format!("{} {} from {}", paint(GREEN, "made"), paint(BOLD, &name), template.name));
    for path in written {
        output::message(&format!("  {}", paint(DIM, args.dir.join(path).display())));
    }
    output::message(&format!("next: {}", paint(BOLD, format!("cd {shown} && marram up"))));
    Ok(())
}

fn name_of(folder: &Path) -> anyhow::Result<Name> {
    // `marram new .` means the folder that one is in.
    let full = std::path::absolute(folder)?;
    let text =
        full.components().next_back().map(|part| part.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Name::new(&text).map_err(|error| {
        Problem::new(Exit::Usage, error.to_string()).hint("give the app a name of its own with --name")
    })?)
}
