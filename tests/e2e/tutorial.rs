//! Test of `module-sdk/TUTORIAL.md`, followed to the letter.
//!
//! A block that is fenced as `sh` goes to one shell, block by block; `text` is part of the output
//! of the block before; `diff` is an edit by hand. `background` and `interrupt` are for the second
//! terminal.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

use harness::{Sandbox, far_from_midnight, tool_or_skip};
use rustix::process::{Pid, Signal, kill_process};

use crate::author::author;

/// Long timeout: the dependencies of a module are compiled in it.
const PATIENCE: Duration = Duration::from_secs(400);

const DONE: &str = "__done";

/// A terminal: a shell that gets lines, or one command.
struct Terminal {
    child: Child,
    lines: Receiver<String>,
    /// Lines printed since the last block was started.
    seen: Vec<String>,
    /// Process that the last block started in the background.
    daemon: Option<Pid>,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a shell is there");
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().map(|it| Box::new(it) as Box<dyn Read + Send>);
        let stderr = child.stderr.take().map(|it| Box::new(it) as Box<dyn Read + Send>);
        for stream in [stdout, stderr].into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self { child, lines, seen: Vec::new(), daemon: None }
    }

    /// Waits for a line that contains a text, however wide its columns are.
    #[track_caller]
    fn wait(&mut self, part: &str) -> String {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let until = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.recv_timeout(until.saturating_duration_since(Instant::now()));
            let Ok(line) = line else { panic!("no {part:?} in {:#?}", self.seen) };
            self.seen.push(line.clone());
            if words(&line).contains(&words(part)) {
                return line;
            }
        }
    }

    /// Runs a block in the shell, and waits until it is done; every command of it must succeed.
    #[track_caller]
    fn run(&mut self, block: &str) {
        self.seen.clear();
        let shell = self.child.stdin.as_mut().expect("it is piped");
        write!(shell, "{block}\necho {DONE} $!\n").expect("the shell lives");
        let done = self.wait(DONE);
        let pid = done.split_whitespace().nth(1).and_then(|pid| pid.parse().ok());
        self.daemon = pid.and_then(Pid::from_raw);
    }

    /// Checks that the output of the last block contains these lines.
    #[track_caller]
    fn printed(&self, expected: &str) {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in expected.lines() {
            let found = self.seen.iter().any(|line| words(line).contains(&words(part)));
            assert!(found, "no {part:?} in {:#?}", self.seen);
        }
    }

    fn interrupt(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a pid"), Signal::INT).expect("it lives");
        let status = self.child.wait().expect("it is ours");
        assert!(status.success(), "{status}: {:#?}", self.seen);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon {
            // An error means that it has ended.
            let _ = kill_process(daemon, Signal::TERM);
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Returns the fenced blocks of a page: the tag of the fence, and the text.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let mut parts = page.split("\n```");
    let mut blocks = Vec::new();
    parts.next();
    while let (Some(block), Some(_)) = (parts.next(), parts.next()) {
        let (tag, text) = block.split_once('\n').unwrap_or((block, ""));
        blocks.push((tag, text));
    }
    blocks
}

/// Applies a diff without context, as a person would.
fn apply(folder: &Path, diff: &str) {
    let name = diff.lines().find_map(|line| line.strip_prefix("+++ b/")).expect("a file");
    let side = |sign: char| -> String {
        let is_head = |line: &&str| line.starts_with("---") || line.starts_with("+++");
        let lines = diff.lines().filter(|line| !is_head(line));
        lines.filter_map(|line| line.strip_prefix(sign)).map(|line| format!("{line}\n")).collect()
    };
    let (old, new) = (side('-'), side('+'));
    let text = fs::read_to_string(folder.join(name)).expect("the file is there");
    assert_eq!(text.matches(&old).count(), 1, "{name} has this once:\n{old}");
    fs::write(folder.join(name), text.replace(&old, &new)).expect("it is writable");
}

/// Starts a shell as a person has it: with the usual socket, and the modules as they were built.
fn terminal(sandbox: &Sandbox, folder: &Path, words: &[&str]) -> Terminal {
    let mut command = author(sandbox, Path::new("sh"));
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../module-sdk");
    command.env_remove("LODESTAR_SOCKET").env("LODESTAR_MODULE_PATH", sandbox.path("modules"));
    command.env("LODESTAR_INGEST__LISTEN", "127.0.0.1:0").env("LODESTAR_SDK", sdk);
    command.env("TZ", far_from_midnight());
    command.args(words).current_dir(folder);
    Terminal::start(command)
}

#[test]
fn the_tutorial_works_as_it_is_written() {
    if tool_or_skip("curl", "the_tutorial_works_as_it_is_written").is_none() {
        return;
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../module-sdk/TUTORIAL.md");
    let page = fs::read_to_string(page).expect("the page is there");
    let sandbox = Sandbox::new(&["ingest"], "");
    let mut shell = terminal(&sandbox, &sandbox.path("."), &["-e"]);
    let folder = sandbox.path("day_guard");
    let mut second = None;
    let mut done = 0;
    for (tag, text) in blocks(&page) {
        match tag {
            "sh" => shell.run(text),
            "sh daemon" => {
                shell.run(text);
                // A person is slower than this.
                shell.run("until lodestar status >/dev/null 2>&1; do sleep 0.05; done");
            }
            "sh background" => {
                let command = format!("exec {}", text.trim());
                second = Some(terminal(&sandbox, &folder, &["-c", &command]));
            }
            "sh interrupt" => second.take().expect("it runs").interrupt(),
            // What follows a command in the second terminal is printed there.
            "text" | "text background" => match &mut second {
                Some(second) => text.lines().for_each(|line| drop(second.wait(line))),
                None => shell.printed(text),
            },
            "diff" => apply(&folder, text),
            "yaml" => {}
            other => panic!("the page has a block that no test does: {other}"),
        }
        done += 1;
    }
    assert!(done > 10, "the page has more blocks than {done}");
}
