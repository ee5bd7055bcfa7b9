//! A session with NVIDIA's management library (NVML): what is asked of it, and what its errors
//! mean.
//!
//! Energy and the throughput of PCIe are never asked for: each takes milliseconds.

use std::{ffi::OsStr, fs, sync::Arc};

use nvml_wrapper::{
    Device, Nvml,
    bitmasks::event::EventTypes,
    enum_wrappers::device::{
        Clock, EccCounter, MemoryError, PerformanceState, TemperatureSensor, TemperatureThreshold,
    },
    enums::device::UsedGpuMemory,
    error::NvmlError,
    struct_wrappers::device::ProcessInfo,
};

use super::item::{Item, Items};
use crate::text;

/// Processes that are kept of a card: those with the most memory.
const PROCESSES: usize = 64;
/// Cards that are looked at; a machine has sixteen at most today.
const CARDS: u32 = 64;
/// Codes of NVML that the wrapper has no name for.
const ARGUMENT_VERSION_MISMATCH: u32 = 25;
const DEPRECATED: u32 = 26;
const GPU_NOT_FOUND: u32 = 28;

/// Reason why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// The library is not installed, or cannot be loaded.
    #[error("{0}")]
    NoLibrary(String),
    /// The library is there, and the driver is not loaded.
    #[error("the NVIDIA driver is not loaded")]
    NotLoaded,
    /// The driver that is loaded is of another version than the library.
    #[error("the NVIDIA driver was updated, and the one before it is still loaded")]
    Mismatch,
    /// A call hangs in the driver.
    #[error("the NVIDIA driver does not answer; `dmesg | grep -iE 'nvrm|xid'` may tell why")]
    Hangs,
    /// There is no card.
    #[error("the NVIDIA driver has no card")]
    NoCard,
    /// The driver refuses.
    #[error("the NVIDIA driver refuses: {0}")]
    Other(String),
}

impl From<NvmlError> for Failure {
    fn from(error: NvmlError) -> Self {
        match error {
            NvmlError::LibloadingError(_)
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::LibraryNotFound => {
                let error = text::visible(&error.to_string());
                let reason = error.trim_start_matches("a libloading error occurred: ");
                Self::NoLibrary(format!("no NVIDIA driver: {reason}"))
            }
            NvmlError::DriverNotLoaded => Self::NotLoaded,
            NvmlError::LibRmVersionMismatch => Self::Mismatch,
            NvmlError::NoPermission => {
                Self::Other(format!("{error}; `ls -l /dev/nvidia*` shows who may use it"))
            }
            _ => Self::Other(text::visible(&error.to_string())),
        }
    }
}

/// Reason why a card gives no more answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It fell off the bus.
    Lost,
    /// It has to be reset.
    ResetRequired,
    /// It did not answer in time.
    TimedOut,
    /// The session is over.
    Closed,
}

/// A card, as a session finds it.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) index: u32,
    /// Its UUID, and `None` where it does not even tell that.
    pub(super) id: Option<String>,
    pub(super) name: String,
    pub(super) driver: Arc<str>,
    pub(super) slowdown: Option<f64>,
    pub(super) shutdown: Option<f64>,
    pub(super) unsupported: Items,
    pub(super) end: Option<End>,
}

/// Values of a card at a moment. What it does not tell is `None`.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) unsupported: Items,
    /// `true` where the card could be asked at all.
    pub(super) is_reached: bool,
    pub(super) end: Option<End>,
    pub(super) utilization: Option<f64>,
    pub(super) memory: Option<Memory>,
    pub(super) temperature: Option<f64>,
    pub(super) power: Option<f64>,
    pub(super) fan: Option<f64>,
    pub(super) clock: Option<f64>,
    pub(super) memory_clock: Option<f64>,
    pub(super) performance_state: Option<f64>,
    pub(super) throttle_reasons: Option<u64>,
    pub(super) ecc: Option<Ecc>,
    pub(super) rare: Option<Rare>,
}

/// Memory of a card in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) used: f64,
    pub(super) free: f64,
    pub(super) total: f64,
}

/// Errors of a card's memory since its driver was loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ecc {
    pub(super) corrected: f64,
    pub(super) uncorrected: f64,
}

/// Values that are asked for now and then.
#[derive(Debug, Default)]
pub(super) struct Rare {
    pub(super) power_limit: Option<f64>,
    pub(super) processes: Option<Vec<Process>>,
}

/// A process that uses a card.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Its name, where this machine has one for it.
    pub(super) name: Option<String>,
    pub(super) memory_bytes: Option<u64>,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    nvml: Arc<Nvml>,
}

impl Session {
    /// Loads the library and begins a session.
    ///
    /// # Errors
    ///
    /// The reason why there is none.
    pub(super) fn open(library: Option<&OsStr>) -> Result<Self, Failure> {
        let mut builder = Nvml::builder();
        if let Some(library) = library {
            builder.lib_path(library);
        }
        Ok(Self { nvml: Arc::new(builder.init()?) })
    }

    /// Returns the library, for the thread that waits for events.
    pub(super) fn nvml(&self) -> Arc<Nvml> {
        self.nvml.clone()
    }

    /// Finds the cards.
    ///
    /// # Errors
    ///
    /// When the driver does not tell how many there are.
    pub(super) fn cards(&self) -> Result<Vec<About>, Failure> {
        let driver = self.nvml.sys_driver_version().unwrap_or_else(|_| "unknown".to_owned());
        let driver: Arc<str> = text::visible(&driver).into();
        let count = self.nvml.device_count()?.min(CARDS);
        Ok((0..count).filter_map(|index| self.about(index, driver.clone())).collect())
    }

    /// Returns a card; `None` for one that this process may not use.
    fn about(&self, index: u32, driver: Arc<str>) -> Option<About> {
        let mut asking = Asking::default();
        let mut about = About {
            index,
            id: None,
            name: "an NVIDIA card".to_owned(),
            driver,
            slowdown: None,
            shutdown: None,
            unsupported: Items::default(),
            end: None,
        };
        let card = asking.need(self.nvml.device_by_index(index));
        if card.is_none() && asking.end.is_none() {
            return None;
        }
        if let Some(card) = card {
            about.id = asking.need(card.uuid()).map(|id| text::visible(&id));
            about.name = asking.need(card.name()).map_or(about.name, |name| text::visible(&name));
            let limit = |kind| card.temperature_threshold(kind).map(f64::from);
            about.slowdown =
                asking.ask(Item::TemperatureLimit, || limit(TemperatureThreshold::Slowdown));
            about.shutdown =
                asking.ask(Item::ShutdownTemperature, || limit(TemperatureThreshold::Shutdown));
            let tells_xids = |types: EventTypes| types.contains(EventTypes::CRITICAL_XID_ERROR);
            match asking.ask(Item::Xid, || card.supported_event_types()) {
                Some(types) if !tells_xids(types) => asking.unsupported.add(Item::Xid),
                _ => {}
            }
        }
        Some(About { unsupported: asking.unsupported, end: asking.end, ..about })
    }

    /// Asks a card for its values, but not for those that it does not have.
    pub(super) fn sample(&self, index: u32, unsupported: Items, with_rare: bool) -> Sample {
        let mut asking = Asking { unsupported, end: None };
        let mut sample = Sample::default();
        if let Some(card) = asking.need(self.nvml.device_by_index(index)) {
            sample.is_reached = true;
            take(&card, &mut asking, &mut sample);
            if with_rare {
                sample.rare = Some(rare(&card, &mut asking));
            }
        }
        Sample { unsupported: asking.unsupported, end: asking.end, ..sample }
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes and counts beyond 2^53 may be rounded")]
fn take(card: &Device<'_>, asking: &mut Asking, sample: &mut Sample) {
    sample.utilization = asking
        .ask(Item::Utilization, || card.utilization_rates())
        .map(|rates| f64::from(rates.gpu) / 100.0);
    sample.memory = asking.ask(Item::Memory, || card.memory_info()).map(|memory| Memory {
        used: memory.used as f64,
        free: memory.free as f64,
        total: memory.total as f64,
    });
    sample.temperature =
        asking.ask(Item::Temperature, || card.temperature(TemperatureSensor::Gpu)).map(f64::from);
    sample.power =
        asking.ask(Item::Power, || card.power_usage()).map(|power| f64::from(power) / 1_000.0);
    sample.fan = asking.ask(Item::Fan, || card.fan_speed(0)).map(|fan| f64::from(fan) / 100.0);
    let hertz = |mhz: u32| f64::from(mhz) * 1e6;
    sample.clock = asking.ask(Item::Clock, || card.clock_info(Clock::SM)).map(hertz);
    sample.memory_clock =
        asking.ask(Item::MemoryClock, || card.clock_info(Clock::Memory)).map(hertz);
    sample.performance_state =
        asking.ask(Item::PerformanceState, || card.performance_state()).and_then(performance_state);
    sample.throttle_reasons = asking
        .ask(Item::ThrottleReasons, || card.current_throttle_reasons())
        .map(|reasons| reasons.bits());
    let errors = |kind| card.total_ecc_errors(kind, EccCounter::Volatile);
    sample.ecc = asking
        .ask(Item::Ecc, || Ok((errors(MemoryError::Corrected)?, errors(MemoryError::Uncorrected)?)))
        .map(|(corrected, uncorrected)| Ecc {
            corrected: corrected as f64,
            uncorrected: uncorrected as f64,
        });
}

fn rare(card: &Device<'_>, asking: &mut Asking) -> Rare {
    let power_limit = asking
        .ask(Item::PowerLimit, || card.enforced_power_limit())
        .map(|limit| f64::from(limit) / 1_000.0);
    let computing = asking.ask(Item::Processes, || card.running_compute_processes());
    let drawing = asking.ask(Item::Graphics, || card.running_graphics_processes());
    let is_told = computing.is_some() || drawing.is_some();
    let all = computing.into_iter().chain(drawing).flatten();
    Rare { power_limit, processes: is_told.then(|| processes(all)) }
}

/// Returns the processes with the most memory, each once: one that computes and draws is in both
/// lists.
fn processes(all: impl Iterator<Item = ProcessInfo>) -> Vec<Process> {
    let mut processes: Vec<(u32, Option<u64>)> = Vec::new();
    for process in all {
        let used = match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        match processes.iter_mut().find(|(pid, _)| *pid == process.pid) {
            Some((_, known)) => *known = (*known).max(used),
            None => processes.push((process.pid, used)),
        }
    }
    processes.sort_by_key(|(pid, used)| (std::cmp::Reverse(*used), *pid));
    processes.truncate(PROCESSES);
    processes
        .into_iter()
        .map(|(pid, memory_bytes)| Process { pid, name: process_name(pid), memory_bytes })
        .collect()
}

fn process_name(pid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(text::visible(String::from_utf8_lossy(&name).trim_end()))
}

/// Returns the number of a performance state, from 0 for the highest performance to 15.
fn performance_state(state: PerformanceState) -> Option<f64> {
    let number = state.as_c();
    (number <= 15).then(|| f64::from(number))
}

/// Questions to one card, up to the answer after which there are no more.
#[derive(Debug, Default)]
struct Asking {
    unsupported: Items,
    end: Option<End>,
}

impl Asking {
    /// Asks for an item that the card may not have.
    fn ask<T>(&mut self, item: Item, call: impl FnOnce() -> Result<T, NvmlError>) -> Option<T> {
        if self.end.is_some() || self.unsupported.has(item) {
            return None;
        }
        let error = match call() {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        match error {
            NvmlError::NotSupported
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::FunctionNotFound
            | NvmlError::NoPermission
            | NvmlError::InvalidArg
            | NvmlError::UnexpectedVariant(ARGUMENT_VERSION_MISMATCH | DEPRECATED) => {
                self.unsupported.add(item);
            }
            error => self.end = end(&error),
        }
        None
    }

    /// Takes the answer to a question that nothing replaces.
    fn need<T>(&mut self, answer: Result<T, NvmlError>) -> Option<T> {
        match answer {
            Ok(value) => Some(value),
            Err(error) => {
                self.end = self.end.or_else(|| end(&error));
                None
            }
        }
    }
}

const fn end(error: &NvmlError) -> Option<End> {
    match error {
        NvmlError::GpuLost | NvmlError::UnexpectedVariant(GPU_NOT_FOUND) => Some(End::Lost),
        NvmlError::ResetRequired => Some(End::ResetRequired),
        NvmlError::Timeout => Some(End::TimedOut),
        NvmlError::Uninitialized => Some(End::Closed),
        _ => None,
    }
}
