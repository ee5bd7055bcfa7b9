//! `cargo xtask`: the commands of a developer.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

mod adr;
mod bench;
mod build;
mod coverage;
mod demo;
mod dist;
mod http;
mod prices;
mod process;
mod test;
mod tidy;
mod workspace;

/// Everything that a developer of Lodestar types.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Build everything in release and lay it out in <target>/stage as it is installed.
    Build,
    /// Build, start a daemon, send it traffic and show what it makes of it.
    Demo(demo::Args),
    /// Everything that a change must pass.
    Test(test::Args),
    /// Run the benchmark programs, each beside its baseline.
    Bench(bench::Args),
    /// Run the tests with counters and show which lines they ran.
    Coverage(coverage::Args),
    /// Check the rules of the house.
    Tidy,
    /// Begin an architecture decision record with the next number.
    Adr(adr::Args),
    /// Validate the price table and show how old it is.
    Prices,
    /// Pack what `build` staged with unit, configuration, completions and manual.
    Dist,
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        None => Cli::command().print_help().map_err(Into::into),
        Some(Verb::Build) => build::run().map(drop),
        Some(Verb::Demo(args)) => demo::run(&args),
        Some(Verb::Test(args)) => match test::run(&args) {
            // The count is the last line, failed or not.
            Ok(passed) => return if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE },
            Err(error) => Err(error),
        },
        Some(Verb::Bench(args)) => bench::run(&args),
        Some(Verb::Coverage(args)) => coverage::run(&args),
        Some(Verb::Tidy) => tidy::run(),
        Some(Verb::Adr(args)) => adr::run(&args),
        Some(Verb::Prices) => prices::run(),
        Some(Verb::Dist) => dist::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
