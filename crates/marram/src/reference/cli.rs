//! The command line: every verb, argument and exit code, from the parser's own definitions.

use std::fmt::Write as _;

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Command, CommandFactory as _};

use super::{GENERATED, head, row};
use crate::cli::Cli;
use crate::exit::Exit;

/// The page.
pub(crate) fn page() -> String {
    let mut command = Cli::command();
    command.build();
    let mut page = format!("{GENERATED}# Command line\n\n{}\n\n", about(&command));
    page.push_str(
        "Data goes to stdout, messages go to stderr. `--json` prints what the node answered. Colours follow the terminal and \
         `NO_COLOR`. A verb that talks to a node takes `--node` and `--token`, or `MARRAM_NODE` and `MARRAM_TOKEN`.\n\n",
    );
    page.push_str(&head(["Verb", "What it does"]));
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = verb.get_name();
        page.push_str(&row([&format!("[`marram {name}`](#marram-{name})"), &about(verb)]));
    }
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        describe(verb, &format!("marram {}", verb.get_name()), 2, &mut page);
    }
    page.push_str("\n## Exit codes\n\n");
    page.push_str(&head(["Code", "Meaning"]));
    for exit in Exit::ALL {
        page.push_str(&row([&(exit as u8).to_string(), exit.meaning()]));
    }
    page
}

fn describe(command: &Command, path: &str, level: usize, page: &mut String) {
    let text = command.get_long_about().or(command.get_about()).map(StyledStr::to_string).unwrap_or_default();
    let _ =
        write!(page, "\n{} marram {}\n\n{}\n", "#".repeat(level), path.trim_start_matches("marram "), sentence(&text));
    let usage = command.clone().render_usage().to_string();
    let _ = write!(page, "\n```text\n{}\n```\n", usage.trim_start_matches("Usage: ").trim());
    let arguments: Vec<_> =
        command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_id() != "help").collect();
    if !arguments.is_empty() {
        page.push('\n');
        page.push_str(&head(["Argument", "Meaning", "Default", "Environment"]));
        for arg in arguments {
            page.push_str(&row([&format!("`{}`", written(arg)), &meaning(arg), &default(arg), &environment(arg)]));
        }
    }
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        describe(verb, &format!("{path} {}", verb.get_name()), level + 1, page);
    }
}

/// `-f`, `--follow`; `--node <URL>`; `<APP>`.
fn written(arg: &Arg) -> String {
    let value =
        arg.get_value_names().and_then(|names| names.first()).map(|name| format!("<{name}>")).unwrap_or_default();
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let flag = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (None, Some(long)) => format!("--{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, None) => return value,
    };
    if takes_value && !value.is_empty() { format!("{flag} {value}") } else { flag }
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help()).map(StyledStr::to_string).unwrap_or_default();
    let values = arg.get_possible_values();
    if values.is_empty() || matches!(arg.get_action(), ArgAction::SetTrue) {
        return sentence(&help);
    }
    let values: Vec<_> = values
        .iter()
        .map(|value| match value.get_help().map(StyledStr::to_string).filter(|help| !help.is_empty()) {
            Some(help) => format!("`{}` ({help})", value.get_name()),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    format!("{} One of {}.", sentence(&help), values.join(", "))
}

fn default(arg: &Arg) -> String {
    let values: Vec<_> =
        arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    if matches!(arg.get_action(), ArgAction::SetTrue) { String::new() } else { values.join(", ") }
}

fn environment(arg: &Arg) -> String {
    arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default()
}

fn about(command: &Command) -> String {
    sentence(&command.get_about().map(StyledStr::to_string).unwrap_or_default())
}

/// Help has no full stop at its end; a page does.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with(['.', ':']) { text.to_owned() } else { format!("{text}.") }
}
