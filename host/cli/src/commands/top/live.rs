//! The live view on a terminal: reads keys, signals and the daemon, and restores the terminal.

use std::{io, time::Duration};

use ratatui::{DefaultTerminal, crossterm::event};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use tokio::sync::mpsc;

use super::{
    app::{App, Input},
    frame::Sample,
    look, view,
};
use crate::{
    client::Client,
    error::{CliError, Result},
    exit_codes,
};

/// Longest time for an answer before the view says that there is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shows the modules until it is left.
pub(super) async fn run(
    first: Sample,
    interval: Duration,
    client: &Client,
    color: bool,
) -> Result<u8> {
    let (sender, mut inputs) = mpsc::channel(16);
    let client = Client { timeout: client.timeout.min(PATIENCE), ..client.clone() };
    let mut screen = Screen::open().map_err(|error| cannot("use this terminal", &error))?;
    watch_signals(sender.clone()).map_err(|error| cannot("watch for signals", &error))?;
    let keys = sender.clone();
    std::thread::spawn(move || read_keys(&keys));
    tokio::spawn(watch_daemon(client, interval, sender));
    let mut app = App::new(first, color);
    loop {
        let drawn = screen.0.draw(|frame| view::draw(frame, &mut app));
        drawn.map_err(|error| cannot("draw on this terminal", &error))?;
        let Some(input) = inputs.recv().await else { break };
        if app.take(input).is_break() {
            break;
        }
    }
    Ok(exit_codes::DONE)
}

/// The terminal in the state that the view needs; restored when dropped, or at a panic.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Samples the daemon's status after each interval, whether it answers or not.
async fn watch_daemon(client: Client, interval: Duration, inputs: mpsc::Sender<Input>) {
    loop {
        tokio::time::sleep(interval).await;
        let input = match look(&client).await {
            Ok(sample) => Input::Looked(Box::new(sample)),
            Err(error) => Input::Silent(words(&error)),
        };
        if inputs.send(input).await.is_err() {
            return;
        }
    }
}

fn words(error: &CliError) -> String {
    error.failure().map(|failure| failure.message.clone()).unwrap_or_default()
}

/// Reads keys on a thread of its own, since reading blocks; nobody waits for it at the end.
fn read_keys(inputs: &mpsc::Sender<Input>) {
    // Without keys the view could not be left.
    while inputs.blocking_send(event::read().map_or(Input::End, Input::Terminal)).is_ok() {}
}

/// Ends the view, and so puts the terminal back, at the signals that end a process.
fn watch_signals(inputs: mpsc::Sender<Input>) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if inputs.blocking_send(Input::End).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn cannot(what: &str, error: &io::Error) -> CliError {
    CliError::failed(format!("cannot {what}: {error}"))
        .help("print one table with `lodestar top --once`")
}
