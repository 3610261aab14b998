//! `marram build`: the builds of the manifest, in its order.

use clap::Args;

use crate::building::{self, Job};
use crate::cli::ProjectArgs;
use crate::exit::{Exit, Problem};
use crate::output::{self, BOLD, DIM, GREEN, paint};
use crate::project::Project;
use crate::{stale, units};

/// Runs the builds of the manifest.
#[derive(Args, Debug)]
pub(crate) struct Build {
    #[command(flatten)]
    project: ProjectArgs,
    /// Only this function; can be given several times
    #[arg(long, short, value_name = "NAME")]
    function: Vec<String>,
    /// Only what is older than its sources
    #[arg(long)]
    stale: bool,
}

/// Runs them.
pub(crate) async fn run(args: &Build) -> anyhow::Result<()> {
    let project = Project::open(&args.project)?;
    if let Some(name) = args.function.iter().find(|name| project.manifest.function(name).is_none()) {
        let known: Vec<_> = project.manifest.functions.iter().map(|function| function.name.as_str()).collect();
        let message = format!("the app \"{}\" has no function \"{name}\"", project.manifest.app.name);
        return Err(Problem::new(Exit::NotFound, message).hint(format!("it has {}", known.join(", "))).into());
    }
    let mut wanted = Vec::new();
    for function in &project.manifest.functions {
        let named = args.function.is_empty() || args.function.iter().any(|name| name == function.name.as_str());
        if named && (!args.stale || stale::is_stale(&project, function)?) {
            wanted.push(function);
        }
    }
    let jobs = building::jobs(wanted);
    if jobs.is_empty() {
        output::message("nothing to build");
    }
    for job in &jobs {
        run_one(&project, job).await?;
    }
    Ok(())
}

async fn run_one(project: &Project, job: &Job) -> anyhow::Result<()> {
    output::message(&format!("building {} {}", paint(BOLD, job.title()), paint(DIM, &job.command)));
    let took = building::in_foreground(&project.folder, job).await?;
    for name in &job.functions {
        let Some(function) = project.manifest.function(name) else { continue };
        let path = project.component(function);
        let Ok(file) = path.metadata() else {
            return Err(building::made_nothing(function).into());
        };
        let size = units::bytes(file.len());
        output::message(&format!(
            "{} {name} in {}: {} ({size})",
            paint(GREEN, "built"),
            units::duration(took),
            function.component
        ));
    }
    Ok(())
}

/// Builds what is stale before a deployment.
pub(crate) async fn stale_ones(project: &Project) -> anyhow::Result<()> {
    let mut wanted = Vec::new();
    for function in &project.manifest.functions {
        if stale::is_stale(project, function)? {
            wanted.push(function);
        }
    }
    for job in &building::jobs(wanted) {
        run_one(project, job).await?;
    }
    Ok(())
}
