//! Events of a trainer, a line of JSON at a time. Nothing of it is believed that does not fit the
//! job.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Job, job::VERSION};

/// Longest line that is read, in bytes; of longer ones nothing is.
const LONGEST_LINE: usize = 65_536;
/// Longest message that is kept, in characters.
const LONGEST_MESSAGE: usize = 300;
/// Bytes that are read at a time.
const PIECE: u64 = 1 << 20;

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Number of the step after which it was written.
    pub step: u64,
    /// Its path.
    pub path: PathBuf,
}

/// The last word of a trainer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastWord {
    /// It finished.
    Done,
    /// It stopped and can be resumed.
    Stopped,
    /// It failed.
    Error {
        /// Exit code that it announced.
        code: Option<i64>,
        /// Message, without control characters. It may hold text of examples.
        message: String,
    },
}

/// All that a trainer told so far, as far as it fits the job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    /// Number of steps that are done.
    pub step: u64,
    /// Number of all steps.
    pub max_steps: Option<u64>,
    /// Loss of the last step.
    pub loss: Option<f64>,
    /// Loss on the held-out examples.
    pub eval_loss: Option<f64>,
    /// Memory at its peak, in MB.
    pub peak_mb: Option<f64>,
    /// Number of weights that are trained.
    pub trainable: Option<u64>,
    /// Number of all weights.
    pub total: Option<u64>,
    /// Time that the trainer expects to need, in seconds.
    pub predicted_s: Option<f64>,
    /// Memory that the trainer expects to need, in MB.
    pub predicted_mb: Option<f64>,
    /// The last checkpoint within the output folder.
    pub checkpoint: Option<Checkpoint>,
    /// The last word.
    pub last_word: Option<LastWord>,
    /// Number of lines that are no events, or do not fit the job.
    pub faults: u64,
    /// Number of the last event.
    #[serde(skip)]
    seq: Option<u64>,
    /// Number of evaluations since the last step.
    #[serde(skip)]
    evals: u32,
    #[serde(skip)]
    is_ready: bool,
}

/// Evaluations after one step that are signs of life; a trainer that only evaluates hangs.
const MOST_EVALS: u32 = 3;

impl Told {
    /// Returns the beginning of a job: one that is resumed has a checkpoint already.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        let path = job.resume_from.clone();
        let checkpoint = path.map(|path| Checkpoint { step: 0, path });
        Self { checkpoint, ..Self::default() }
    }

    /// Notes a line, and returns whether it shows that the training goes on.
    pub fn note(&mut self, line: &[u8], job: &Job) -> bool {
        if line.iter().all(u8::is_ascii_whitespace) {
            return false;
        }
        let alive = serde_json::from_slice(line).ok().and_then(|event| self.event(&event, job));
        if alive.is_none() {
            self.faults += 1;
        }
        alive.unwrap_or(false)
    }

    /// Notes a line that was too long.
    pub const fn note_fault(&mut self) {
        self.faults += 1;
    }

    /// Notes an event; returns none for one that cannot be.
    fn event(&mut self, event: &Value, job: &Job) -> Option<bool> {
        let number = |key: &str| event.get(key).and_then(Value::as_u64);
        let real = |key: &str| event.get(key).and_then(Value::as_f64).filter(|it| it.is_finite());
        let name = event.get("event")?.as_str()?;
        let (v, seq) = (number("v")?, number("seq")?);
        let is_next = self.seq.is_none_or(|last| seq > last);
        if v != u64::from(VERSION) || !is_next || self.last_word.is_some() {
            return None;
        }
        self.seq = Some(seq);
        match name {
            "start" | "env" => Some(self.step == 0 && !self.is_ready && seq < 16),
            "ready" => {
                let is_first = !self.is_ready;
                self.is_ready = true;
                self.trainable = number("trainable").or(self.trainable);
                self.total = number("total").or(self.total);
                self.predicted_s = real("predicted_s").or(self.predicted_s);
                self.predicted_mb = real("predicted_mb").or(self.predicted_mb);
                Some(is_first)
            }
            "progress" => {
                let step = number("step")?;
                let max = number("max_steps").or(self.max_steps);
                let is_within = max.is_none_or(|max| step <= max)
                    && job.train.max_steps.is_none_or(|asked| max.is_none_or(|max| max <= asked));
                if step <= self.step || !is_within {
                    return None;
                }
                (self.step, self.max_steps, self.evals) = (step, max, 0);
                self.loss = real("loss");
                self.peak_mb = real("peak_mb").or(self.peak_mb);
                Some(true)
            }
            "eval" => {
                self.eval_loss = real("loss").or_else(|| real("eval_loss"));
                self.evals += 1;
                Some(self.evals <= MOST_EVALS)
            }
            "checkpoint" => {
                let step = number("step")?;
                let path = event.get("path")?.as_str()?;
                let path = within(&job.output_dir, Path::new(path))?;
                let is_new = self.checkpoint.as_ref().is_none_or(|last| step > last.step);
                if step > self.step.max(job_step(self)) || !is_new {
                    return None;
                }
                self.checkpoint = Some(Checkpoint { step, path });
                Some(true)
            }
            "done" => Some(self.ends_with(LastWord::Done)),
            "stopped" => Some(self.ends_with(LastWord::Stopped)),
            "error" => {
                let message = event.get("message").and_then(Value::as_str).unwrap_or_default();
                let code = event.get("code").and_then(Value::as_i64);
                Some(self.ends_with(LastWord::Error { code, message: cleaned(message) }))
            }
            // `saved`, `merged` and what later versions tell.
            _ => Some(false),
        }
    }

    fn ends_with(&mut self, word: LastWord) -> bool {
        self.last_word = Some(word);
        true
    }
}

/// Returns the greatest step that a checkpoint may have before the first progress: one that was
/// resumed has its own.
const fn job_step(told: &Told) -> u64 {
    match told.max_steps {
        Some(max) if told.step == 0 => max,
        _ => told.step,
    }
}

/// Returns a path below the output folder; none for one that leads out of it. Relative ones are
/// those of the folder of the attempt, in which the trainer runs.
fn within(folder: &Path, path: &Path) -> Option<PathBuf> {
    let whole = if path.is_absolute() { path.to_owned() } else { folder.parent()?.join(path) };
    let below = whole.strip_prefix(folder).ok()?;
    let is_plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    (is_plain && below.components().next().is_some()).then_some(whole)
}

/// Returns a message in one line without control characters.
fn cleaned(message: &str) -> String {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let shown = |c: char| if is_hidden(c) { ' ' } else { c };
    message.chars().map(shown).take(LONGEST_MESSAGE).collect::<String>().trim().to_owned()
}

/// The reader of the file that a trainer writes its lines to.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    /// Number of bytes that were read.
    read: u64,
    /// Beginning of a line whose end was not written yet.
    begun: Vec<u8>,
    /// `true` while the rest of a line is passed over that is too long.
    is_skipping: bool,
}

impl Lines {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, read: 0, begun: Vec::new(), is_skipping: false }
    }

    /// Returns the number of bytes that were read.
    pub(super) const fn bytes(&self) -> u64 {
        self.read
    }

    /// Reads what was written since then, a piece at most, and notes its lines. Returns whether
    /// there was any, and whether it shows that the training goes on.
    pub(super) fn note(&mut self, told: &mut Told, job: &Job) -> std::io::Result<(bool, bool)> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut piece = Vec::new();
        file.take(PIECE).read_to_end(&mut piece)?;
        self.read += piece.len() as u64;
        let mut is_alive = false;
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            if !self.is_skipping && self.begun.len() + text.len() > LONGEST_LINE {
                told.note_fault();
                self.is_skipping = true;
                self.begun = Vec::new();
            }
            if !self.is_skipping {
                self.begun.extend_from_slice(text);
                if is_whole {
                    is_alive |= told.note(&self.begun, job);
                    self.begun.clear();
                }
            }
            self.is_skipping &= !is_whole;
        }
        Ok((!piece.is_empty(), is_alive))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::job::tests::job, *};

    /// Notes lines of a job with 10 steps; returns which showed life.
    fn told(lines: &[&str]) -> (Told, Vec<bool>) {
        let mut told = Told::default();
        let job = Job { output_dir: "/out".into(), ..job() };
        let alive = lines.iter().enumerate().map(|(seq, line)| {
            let line = line.replacen('{', &format!("{{\"v\":1,\"seq\":{seq},"), 1);
            told.note(line.as_bytes(), &job)
        });
        let alive = alive.collect();
        (told, alive)
    }

    #[test]
    fn a_training_is_followed() {
        let (told, alive) = told(&[
            r#"{"event":"start"}"#,
            r#"{"event":"ready","trainable":22528,"total":171000,"predicted_s":12.5}"#,
            r#"{"event":"progress","step":1,"max_steps":10,"loss":5.5,"peak_mb":30}"#,
            r#"{"event":"progress","step":2,"max_steps":10,"loss":5.0}"#,
            r#"{"event":"checkpoint","step":2,"path":"/out/checkpoint-2"}"#,
            r#"{"event":"eval","step":2,"loss":4.5}"#,
            r#"{"event":"saved","path":"/out"}"#,
            r#"{"event":"done"}"#,
        ]);
        assert_eq!(alive, [true, true, true, true, true, true, false, true]);
        assert_eq!((told.step, told.max_steps, told.loss), (2, Some(10), Some(5.0)));
        assert_eq!((told.eval_loss, told.peak_mb), (Some(4.5), Some(30.0)));
        assert_eq!(told.trainable, Some(22_528));
        let path = "/out/checkpoint-2".into();
        assert_eq!(told.checkpoint, Some(Checkpoint { step: 2, path }));
        assert_eq!((told.last_word, told.faults), (Some(LastWord::Done), 0));
    }

    #[test]
    fn lies_are_faults_and_no_signs_of_life() {
        for lie in [
            r#"{"event":"progress","step":3,"max_steps":10}"#,
            r#"{"event":"progress","step":2,"max_steps":10}"#,
            r#"{"event":"progress","step":11,"max_steps":10}"#,
            r#"{"event":"progress","step":11,"max_steps":1000000}"#,
            r#"{"event":"progress","step":-1}"#,
            r#"{"event":"progress"}"#,
            r#"{"event":"checkpoint","step":2,"path":"/etc"}"#,
            r#"{"event":"checkpoint","step":2,"path":"../other"}"#,
            r#"{"event":"checkpoint","step":2,"path":"/out"}"#,
            r#"{"event":"checkpoint","step":9,"path":"checkpoint-9"}"#,
            r#"{"step":4}"#,
            r#"{"event":7}"#,
            "{",
            "loss = 5",
        ] {
            let (told, alive) = told(&[r#"{"event":"progress","step":3,"max_steps":10}"#, lie]);
            assert_eq!((alive, told.faults), (vec![true, false], 1), "{lie}");
            assert_eq!((told.step, told.checkpoint), (3, None), "{lie}");
        }
        // The same number again, another version, words after the last one.
        let job = job();
        let mut told = Told::default();
        assert!(told.note(br#"{"v":1,"seq":1,"event":"start"}"#, &job));
        assert!(!told.note(br#"{"v":1,"seq":1,"event":"start"}"#, &job));
        assert!(!told.note(br#"{"v":2,"seq":2,"event":"start"}"#, &job));
        assert!(told.note(br#"{"v":1,"seq":3,"event":"stopped"}"#, &job));
        assert!(!told.note(br#"{"v":1,"seq":4,"event":"done"}"#, &job));
        assert_eq!((told.faults, told.last_word), (3, Some(LastWord::Stopped)));
    }

    #[test]
    fn what_repeats_itself_is_no_sign_of_life() {
        let (_, alive) = told(&[r#"{"event":"eval","loss":1}"#; 5]);
        assert_eq!(alive, [true, true, true, false, false]);
        let (_, alive) = told(&[r#"{"event":"ready"}"#; 2]);
        assert_eq!(alive, [true, false]);
        let (told, alive) = told(&[r#"{"event":"hm"}"#, "", "  "]);
        assert_eq!((alive, told.faults), (vec![false, false, false], 0));
    }

    #[test]
    fn a_message_is_one_line() {
        let line = format!(
            r#"{{"event":"error","code":4,"message":"\u001b[31mout\nof \u202ememory{}"}}"#,
            "x".repeat(1_000)
        );
        let (told, _) = told(&[&line]);
        let Some(LastWord::Error { code: Some(4), message }) = told.last_word else {
            panic!("it is an error");
        };
        assert!(message.starts_with("[31mout of  memoryxxx"), "{message}");
        assert!(message.chars().count() <= LONGEST_MESSAGE);
    }

    #[test]
    fn lines_are_read_as_they_come_and_giant_ones_are_not() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("events.jsonl");
        let (mut lines, mut told, job) = (Lines::new(path.clone()), Told::default(), job());
        let mut write = |text: &str, told: &mut Told| {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.create(true).append(true).open(&path).expect("it is opened");
            std::io::Write::write_all(&mut file, text.as_bytes()).expect("it is written");
            while lines.note(told, &job).expect("it is read").0 {}
        };
        write("{\"v\":1,\"seq\":1,\"event\":\"progress\",", &mut told);
        assert_eq!((told.step, told.faults), (0, 0));
        write("\"step\":1}\n", &mut told);
        assert_eq!((told.step, told.faults), (1, 0));
        write(&"x".repeat(3_000_000), &mut told);
        write("\n\u{0}\n{\"v\":1,\"seq\":2,\"event\":\"progress\",\"step\":2}\n", &mut told);
        assert_eq!((told.step, told.faults), (2, 2));
        assert!(lines.bytes() > 3_000_000);
        assert!(lines.begun.capacity() <= 2 * LONGEST_LINE);
    }
}
