//! The labelled prompts.

use std::{
    error::Error,
    fs,
    process::{Command, Stdio},
};

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::curve::Routed;

/// One prompt, and how two models answered it.
#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) set: String,
    pub(crate) domain: String,
    pub(crate) prompt: String,
    #[serde(deserialize_with = "flag")]
    pub(crate) local_ok: bool,
    #[serde(deserialize_with = "flag")]
    pub(crate) paid_ok: bool,
    /// `true` when two local models gave one answer.
    #[serde(rename = "two_locals_agree", default, deserialize_with = "maybe_flag")]
    pub(crate) agree: Option<bool>,
}

impl Row {
    /// Returns the row with the score that a strategy gave it.
    pub(crate) fn routed(&self, score: f64) -> Routed {
        Routed { score, is_local_right: self.local_ok, is_paid_right: self.paid_ok }
    }

    /// Returns what the paid model gains.
    pub(crate) fn gain(&self) -> f64 {
        f64::from(u8::from(self.paid_ok)) - f64::from(u8::from(self.local_ok))
    }
}

/// Reads a file of JSON lines, compressed by xz where its name ends with `.xz`.
pub(crate) fn read(file: &str) -> Result<Vec<Row>, Box<dyn Error>> {
    let text = if file.ends_with(".xz") {
        let mut xz = Command::new("xz");
        xz.args(["--decompress", "--stdout", "--", file]).stderr(Stdio::inherit());
        let output = xz.output().map_err(|error| {
            format!("{file} needs the program xz: {error}; install it (package xz-utils)")
        })?;
        if !output.status.success() {
            return Err(format!("{file} cannot be read: xz ended with {}", output.status).into());
        }
        String::from_utf8(output.stdout)?
    } else {
        fs::read_to_string(file).map_err(|error| format!("{file} cannot be read: {error}"))?
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let rows = lines.map(|(index, line)| {
        serde_json::from_str(line).map_err(|error| format!("{file}, line {}: {error}", index + 1))
    });
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Returns a hash of a text that is the same on every machine.
pub(crate) fn hash(text: &str, salt: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = text
        .bytes()
        .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 16
}

fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match f64::deserialize(deserializer)? {
        0.0 => Ok(false),
        1.0 => Ok(true),
        other => Err(D::Error::custom(format!("{other} is neither 0 nor 1"))),
    }
}

fn maybe_flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.map(|value| value == 1.0))
}
