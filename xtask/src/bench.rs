//! `cargo xtask bench`: the benchmark programs, each figure beside its baseline and its goal.
//!
//! A benchmark of a package (`benches/*.rs`, `harness = false`) prints one JSON object per figure,
//! each on a line of its own: `{"name", "value", "unit", "baseline"?: {"name", "value"}, "goal"?:
//! {"at_least" | "at_most": number, "of": "value" | "ratio"}}`. Everything else is passed on.

use std::{collections::BTreeSet, process::Stdio};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::{build, process, workspace::Workspace};

/// Run the benchmark programs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the figures as JSON; stands before the names.
    #[arg(long)]
    json: bool,
    /// Only these programs (default: all of the workspace), and options for them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "NAME|OPTION")]
    words: Vec<String>,
}

/// Runs the programs one after the other; nothing else should run beside them.
///
/// # Errors
///
/// When a program is unknown or fails. A missed goal is shown and is no error: a busy machine
/// misses goals.
pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = build::run()?;
    let programs = programs(&workspace);
    let (names, options) = sorted(&args.words);
    if let Some(unknown) = names.iter().find(|name| !programs.contains(*name)) {
        let known = programs.into_iter().collect::<Vec<_>>().join(", ");
        bail!("there is no benchmark {unknown:?}; there are: {known}");
    }
    // The programs run in the folders of their packages.
    let options: Vec<String> = options.iter().map(|option| absolute(option)).collect();
    let mut figures = Vec::new();
    for program in &programs {
        if names.is_empty() || names.contains(program) {
            figures.extend(figures_of(&workspace, program, &options)?);
        }
    }
    if args.json {
        println!("{}", json!(figures));
    } else {
        print!("{}", table(&figures));
    }
    Ok(())
}

/// Splits words into names of programs, and the options for them, which begin with a hyphen.
fn sorted(words: &[String]) -> (&[String], &[String]) {
    let options = words.iter().position(|word| word.starts_with('-'));
    words.split_at(options.unwrap_or(words.len()))
}

/// Returns an option, from the root where it is a file.
fn absolute(option: &str) -> String {
    let path = std::path::absolute(option).ok().filter(|path| path.is_file());
    path.map_or_else(|| option.to_owned(), |path| path.display().to_string())
}

/// Returns the benchmark programs of all packages.
fn programs(workspace: &Workspace) -> BTreeSet<String> {
    workspace.packages.iter().flat_map(|package| package.benches.clone()).collect()
}

fn figures_of(workspace: &Workspace, program: &str, options: &[String]) -> Result<Vec<Value>> {
    let mut bench = process::cargo();
    // The release profile and the features of the whole workspace, in which all is compiled
    // already; cargo's own profile `bench`, or a single package, would compile it again.
    bench.args(["bench", "--profile", "release", "--locked", "--workspace", "--bench", program]);
    bench.arg("--").args(options);
    bench.current_dir(&workspace.root).stderr(Stdio::inherit());
    eprintln!("$ {}", process::shown(&bench));
    let output = process::output(&mut bench)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut figures = Vec::new();
    for line in text.lines() {
        match serde_json::from_str::<Value>(line) {
            Ok(figure) if figure["name"].is_string() => figures.push(figure),
            _ => eprintln!("{line}"),
        }
    }
    if !output.status.success() {
        bail!("the benchmark {program} failed: {}", output.status);
    }
    Ok(figures)
}

fn table(figures: &[Value]) -> String {
    let mut text =
        format!("{:<44} {:>14} {:>14} {:>7}  {}\n", "FIGURE", "VALUE", "BASELINE", "RATIO", "GOAL");
    for figure in figures {
        let unit = figure["unit"].as_str().unwrap_or_default();
        let number = |value: &Value| match value.as_f64() {
            Some(value) => format!("{} {unit}", rounded(value)),
            None => "-".to_owned(),
        };
        let ratio = ratio(figure).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}x"));
        text.push_str(&format!(
            "{:<44} {:>14} {:>14} {:>7}  {}\n",
            figure["name"].as_str().unwrap_or("?"),
            number(&figure["value"]),
            number(&figure["baseline"]["value"]),
            ratio,
            goal(figure),
        ));
    }
    text
}

fn ratio(figure: &Value) -> Option<f64> {
    let baseline = figure["baseline"]["value"].as_f64().filter(|value| *value != 0.0)?;
    Some(figure["value"].as_f64()? / baseline)
}

fn goal(figure: &Value) -> String {
    let goal = &figure["goal"];
    let of_ratio = goal["of"] == "ratio";
    let reached = if of_ratio { ratio(figure) } else { figure["value"].as_f64() };
    let (word, bound, met) = match (goal["at_least"].as_f64(), goal["at_most"].as_f64()) {
        (Some(bound), _) => ("at least", bound, reached.is_some_and(|value| value >= bound)),
        (_, Some(bound)) => ("at most", bound, reached.is_some_and(|value| value <= bound)),
        _ => return String::new(),
    };
    let sign = if of_ratio { "x" } else { "" };
    format!("{word} {}{sign}: {}", rounded(bound), if met { "met" } else { "MISSED" })
}

fn rounded(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_behind_the_names() {
        let check = |text: &str, names: usize, options: usize| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            let (found_names, found_options) = sorted(&words);
            assert_eq!((found_names.len(), found_options.len()), (names, options), "{text}");
        };
        check("", 0, 0);
        check("calls daemon", 2, 0);
        check("gateway --faults", 1, 1);
        check("routing --data pairs.jsonl", 1, 2);
    }

    #[test]
    fn figures_stand_beside_their_baseline_and_goal() {
        let check = |figure: Value, expected: &str| {
            let table = table(&[figure]);
            let row = table.lines().nth(1).expect("one row");
            let words = row.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(words, expected);
        };
        let baseline = json!({"name": "broadcast", "value": 500.0});
        let goal = json!({"at_least": 2.0, "of": "ratio"});
        check(
            json!({"name": "bus", "value": 1250.0, "unit": "/s", "baseline": baseline,
                "goal": goal}),
            "bus 1250 /s 500.0 /s 2.50x at least 2.00x: met",
        );
        check(
            json!({"name": "call", "value": 101.0, "unit": "ns", "goal": {"at_most": 100}}),
            "call 101.0 ns - - at most 100.0: MISSED",
        );
        check(json!({"name": "idle", "value": 21, "unit": "MiB"}), "idle 21.0 MiB - -");
    }
}
