//! `lodestard`: arguments, configuration, logging, modules, and one loop.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Parser as _;
use lodestar_platform::{Trouble, resources};
use lodestard::{
    args::Args,
    runner, start,
    supervisor::{self, Supervisor},
    wake::{self, Wake},
    watch::Watches,
};
use tokio::sync::mpsc;

fn main() -> ExitCode {
    let result = resources::expect_stack().and_then(|()| act(&Args::parse()));
    result.unwrap_or_else(|error| {
        eprintln!("lodestard: {error:#}");
        ExitCode::FAILURE
    })
}

fn act(args: &Args) -> anyhow::Result<ExitCode> {
    args.trust_files.clone().unwrap_or_default().apply();
    if args.runner.is_some() {
        runner::main()
    } else if let Some(directory) = &args.describe {
        let (named, confined) = (args.named.as_deref(), args.confined_to.as_deref());
        start::describe(directory, named, confined, args.asked_by)
    } else if let Some(library) = &args.examine {
        start::examine(library)
    } else if args.check {
        start::check(args)
    } else {
        run(args).map(|()| ExitCode::SUCCESS)
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    if args.end_with_parent {
        start::end_with_parent()?;
    }
    let troubles = resources::raise()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("lodestard")
        .thread_keep_alive(start::IDLE_THREAD)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(live(args, troubles))
}

async fn live(args: &Args, troubles: Vec<(&'static str, Trouble)>) -> anyhow::Result<()> {
    let (wakes, mut woken) = mpsc::unbounded_channel();
    wake::watch_signals(wakes.clone()).context("cannot watch for signals")?;
    let started = start::start(args, wakes.clone())?;
    let daemon = started.daemon.clone();
    troubles.into_iter().for_each(|(name, trouble)| daemon.noted.note(name, Some(trouble)));
    let directories = supervisor::library_directories(&daemon);
    let watches = Watches::new(&daemon.places.config, directories, wakes.clone());
    if daemon.is_config_changed() {
        // It was saved after it was read, and before it was watched.
        wakes.send(Wake::ConfigChanged)?;
    }
    let mut supervisor = Supervisor::new(Arc::clone(&daemon), watches);
    if let Some(crash_report) = started.crash_report() {
        supervisor::act_on_crash(&daemon, crash_report);
    }
    supervisor.reconcile();
    start::serve(&started, wakes);
    while let Some(wake) = woken.recv().await {
        if supervisor.handle(wake).is_break() {
            break;
        }
    }
    start::stopping();
    supervisor.shut_down(&mut woken).await;
    started.finish()
}
