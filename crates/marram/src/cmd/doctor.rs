//! `marram doctor`: what is there to build and run functions with, and how to get what is not.

mod checks;

use clap::Args;
use serde::Serialize;

use crate::cli::{JsonArgs, ProjectArgs};
use crate::exit::Exit;
use crate::output::{self, BOLD, DIM, GREEN, RED, YELLOW, paint};

/// Says which toolchains are there and how to get the missing. In the folder of an app it also checks what that app
/// needs, and its state; what is missing then ends it with exit code 1.
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    #[command(flatten)]
    project: ProjectArgs,
    /// Check this state folder, if it is not the app's
    #[arg(long, value_name = "DIR")]
    state: Option<std::path::PathBuf>,
    #[command(flatten)]
    json: JsonArgs,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// It is there.
    Ok,
    /// It is not there, and nothing here needs it.
    Missing,
    /// It is not as it has to be.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    /// What it is for: `rust`, `javascript`, `python`, `state`.
    group: &'static str,
    /// What was looked for.
    name: String,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// How to get it.
    hint: Option<String>,
}

/// Looks at everything and prints it.
pub(crate) async fn run(args: &Doctor) -> anyhow::Result<Exit> {
    let checks = checks::all(&args.project, args.state.as_deref()).await?;
    let bad = checks.iter().any(|check| check.verdict == Verdict::Bad);
    if args.json.json {
        output::json(&serde_json::json!({ "ok": !bad, "checks": checks }))?;
    } else {
        show(&checks)?;
    }
    Ok(if bad { Exit::Failed } else { Exit::Done })
}

fn show(checks: &[Check]) -> anyhow::Result<()> {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let mut group = "";
    for check in checks {
        if check.group != group {
            let gap = if group.is_empty() { "" } else { "\n" };
            output::line(&format!("{gap}{}", paint(BOLD, check.group)))?;
            group = check.group;
        }
        let mark = match check.verdict {
            Verdict::Ok => paint(GREEN, "✓"),
            Verdict::Missing => paint(YELLOW, "–"),
            Verdict::Bad => paint(RED, "✗"),
        };
        output::line(format!("  {mark} {:width$}  {}", check.name, check.found).trim_end())?;
        if let Some(hint) = check.hint.as_ref().filter(|_| check.verdict != Verdict::Ok) {
            output::line(&format!("    {}", paint(DIM, hint)))?;
        }
    }
    Ok(())
}
