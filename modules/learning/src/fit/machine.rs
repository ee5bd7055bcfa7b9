//! The memory that there is: of the card, as `health_monitor` tells it, or of the machine.

use std::{fs, path::Path, time::Duration};

use module_sdk::Host;
use serde::Deserialize;
use serde_json::json;

use super::Device;

/// Time within which `health_monitor` has to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Folder in which the driver lists its cards, for a machine without `health_monitor`.
const DRIVER: &str = "/proc/driver/nvidia/gpus";
/// Megabytes of a card that the driver and the screen keep.
const OF_DRIVER: u64 = 350;
/// Megabytes that the rest of a machine keeps.
const OF_OTHERS: u64 = 500;

/// A card as `health_monitor` shows it.
#[derive(Debug, Clone, Deserialize)]
struct Card {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    memory_total_bytes: Option<f64>,
}

/// The memory that a run can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Memory of the largest card, in MB, where it is known.
    Card { name: Option<String>, mb: Option<u64> },
    /// Free memory of the machine, in MB.
    Machine { free_mb: Option<u64> },
}

impl Memory {
    pub(crate) const fn device(&self) -> Device {
        match self {
            Self::Card { .. } => Device::Card,
            Self::Machine { .. } => Device::Machine,
        }
    }

    pub(crate) fn card(&self) -> Option<&str> {
        match self {
            Self::Card { name, .. } => name.as_deref(),
            Self::Machine { .. } => None,
        }
    }

    /// Returns the memory that the card has, or that is free in the machine.
    pub(crate) const fn total_mb(&self) -> Option<u64> {
        match self {
            Self::Card { mb, .. } => *mb,
            Self::Machine { free_mb } => *free_mb,
        }
    }

    /// Returns what of it a run may take. Other programs on a card make room for a run: the models
    /// of Ollama are unloaded.
    pub(crate) fn usable_mb(&self) -> Option<u64> {
        match self {
            Self::Card { mb, .. } => mb.map(|it| it.saturating_sub(OF_DRIVER)),
            Self::Machine { free_mb } => free_mb.map(|it| it.saturating_sub(OF_OTHERS)),
        }
    }
}

/// Asks for the memory of the cards, and looks at that of the machine where there is none. Never
/// called on the module's own thread.
pub(crate) fn memory(host: &Host) -> Memory {
    let cards = host.call::<_, Vec<Card>>("health_monitor", "gpu", &json!({})).within(ANSWER);
    match cards.wait() {
        Ok(cards) => largest(cards).unwrap_or_else(of_machine),
        // Without it the driver still tells that there is a card.
        Err(_) if has_cards(Path::new(DRIVER)) => Memory::Card { name: None, mb: None },
        Err(_) => of_machine(),
    }
}

fn largest(cards: Vec<Card>) -> Option<Memory> {
    let size = |card: &Card| card.memory_total_bytes.filter(|it| *it > 0.0);
    let card = cards.into_iter().max_by(|one, two| {
        size(one).unwrap_or_default().total_cmp(&size(two).unwrap_or_default())
    })?;
    let mb = size(&card).map(|it| (it / 1e6) as u64);
    let name = card.name.map(|name| crate::commands::plain(&name, 60));
    Some(Memory::Card { name, mb })
}

fn has_cards(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

fn of_machine() -> Memory {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Memory::Machine { free_mb: available_mb(&text) }
}

fn available_mb(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1_024 / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_card_counts() {
        let cards: Vec<Card> = serde_json::from_value(json!([
            {"name": "NVIDIA T600", "memory_total_bytes": 4.0e9, "later": 1},
            {"name": "NVIDIA \u{1b}[31mRTX", "memory_total_bytes": 12.0e9},
            {"name": null, "memory_total_bytes": null},
        ]))
        .expect("they are cards");
        let memory = largest(cards).expect("there are some");
        assert_eq!((memory.device(), memory.card()), (Device::Card, Some("NVIDIA [31mRTX")));
        assert_eq!((memory.total_mb(), memory.usable_mb()), (Some(12_000), Some(11_650)));
        assert_eq!(largest(Vec::new()), None);
    }

    #[test]
    fn a_machine_has_what_is_available() {
        let text = "MemTotal:       32000000 kB\nMemAvailable:   10000000 kB\n";
        assert_eq!(available_mb(text), Some(10_240));
        assert_eq!(available_mb("MemTotal: 1 kB"), None);
        assert!(matches!(of_machine(), Memory::Machine { free_mb: Some(_) }));
        assert!(!has_cards(Path::new("/nowhere")));
    }
}
