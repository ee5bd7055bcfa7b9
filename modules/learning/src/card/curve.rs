//! The course of a training in numbers: the loss by step, as the trainer told it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// File in the folder of a version.
const FILE: &str = "curve.json";
/// File of a trainer's events.
const EVENTS: &str = "events.jsonl";
/// Bytes of such a file that are read.
const MOST_BYTES: u64 = 64 << 20;
/// Steps that are kept in memory.
const MOST_STEPS: usize = 1_000_000;
/// Points that are kept of a curve.
const POINTS: usize = 20;

/// Losses by step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Curve {
    /// Losses on the examples that were trained on.
    pub(super) train: Vec<(u64, f64)>,
    /// Losses on the held-out examples.
    pub(super) held_out: Vec<(u64, f64)>,
}

impl Curve {
    /// Reads what the trainer of a run told, with all attempts and resumptions of it.
    pub(crate) fn of_run(folder: &Path) -> Self {
        let (mut train, mut held_out) = (BTreeMap::new(), BTreeMap::new());
        for file in events(folder) {
            // A file that cannot be read to its end gives what it has.
            if let Err(error) = read(&file, &mut train, &mut held_out) {
                tracing::debug!(%error, "some events of a trainer cannot be read");
            }
        }
        Self { train: thinned(train), held_out: thinned(held_out) }
    }

    /// Reads the curve in the folder of a version; an empty one where there is none.
    pub(super) fn read(folder: &Path) -> Self {
        let text = fs::read(folder.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes the curve into the folder of a version.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        fs::write(folder.join(FILE), serde_json::to_vec(self)?)
    }
}

/// Returns the files of events of a run, the oldest first.
fn events(folder: &Path) -> Vec<PathBuf> {
    let below = |folder: &Path, begin: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(begin))
            .map(|entry| entry.path())
            .collect();
        found.sort();
        found
    };
    let resumed = below(folder, "resumed-");
    let parts = [folder.to_owned()].into_iter().chain(resumed);
    let attempts = parts.flat_map(|part| below(&part, "attempt-"));
    attempts.map(|attempt| attempt.join(EVENTS)).filter(|file| file.is_file()).collect()
}

fn read(
    file: &Path,
    train: &mut BTreeMap<u64, f64>,
    held_out: &mut BTreeMap<u64, f64>,
) -> io::Result<()> {
    for line in BufReader::new(File::open(file)?.take(MOST_BYTES)).lines() {
        let Ok(event) = serde_json::from_str::<Value>(&line?) else { continue };
        let curve = match event["event"].as_str() {
            Some("progress") => &mut *train,
            Some("eval") => &mut *held_out,
            _ => continue,
        };
        let loss = event["loss"].as_f64().filter(|it| it.is_finite());
        if let (Some(step), Some(loss), true) =
            (event["step"].as_u64(), loss, curve.len() < MOST_STEPS)
        {
            curve.insert(step, loss);
        }
    }
    Ok(())
}

/// Returns at most [`POINTS`] points of a curve, evenly spread, the first and the last among them.
fn thinned(curve: BTreeMap<u64, f64>) -> Vec<(u64, f64)> {
    let all: Vec<(u64, f64)> = curve.into_iter().collect();
    if all.len() <= POINTS {
        return all;
    }
    (0..POINTS).map(|it| all[it * (all.len() - 1) / (POINTS - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_resumed_has_one_curve() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |part: &str, steps: std::ops::RangeInclusive<u64>, loss: f64| {
            let folder = folder.path().join(part);
            fs::create_dir_all(&folder).expect("it is made");
            let line =
                |step: u64| format!("{{\"event\":\"progress\",\"step\":{step},\"loss\":{loss}}}\n");
            let mut text: String = steps.clone().map(line).collect();
            text.push_str("no JSON\n{\"event\":\"start\"}\n{\"event\":\"eval\",\"step\":");
            text.push_str(&format!("{},\"loss\":{loss}}}\n", steps.end()));
            fs::write(folder.join(EVENTS), text).expect("it is written");
        };
        write("attempt-1", 1..=30, 3.0);
        write("resumed-1790000000000/attempt-1", 21..=60, 1.0);
        let curve = Curve::of_run(folder.path());
        assert_eq!(curve.train.len(), POINTS);
        assert_eq!((curve.train[0], curve.train[POINTS - 1]), ((1, 3.0), (60, 1.0)));
        // The steps that were done again have their later loss.
        assert!(curve.train.iter().all(|(step, loss)| (*loss < 2.0) == (*step > 20)));
        assert_eq!(curve.held_out, [(30, 3.0), (60, 1.0)]);
        curve.write(folder.path()).expect("it is written");
        assert_eq!(Curve::read(folder.path()), curve);
        assert_eq!(Curve::read(Path::new("/nowhere")), Curve::default());
        assert_eq!(Curve::of_run(Path::new("/nowhere")), Curve::default());
    }
}
