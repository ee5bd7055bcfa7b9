//! The things that are asked of a card, and the set of those that it does not have.

/// Thing that is asked of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    Utilization,
    Memory,
    Temperature,
    TemperatureLimit,
    ShutdownTemperature,
    Power,
    PowerLimit,
    Fan,
    Clock,
    MemoryClock,
    PerformanceState,
    ThrottleReasons,
    Ecc,
    Xid,
    Processes,
    Graphics,
}

impl Item {
    /// Every item.
    pub(super) const ALL: [Self; 16] = [
        Self::Utilization,
        Self::Memory,
        Self::Temperature,
        Self::TemperatureLimit,
        Self::ShutdownTemperature,
        Self::Power,
        Self::PowerLimit,
        Self::Fan,
        Self::Clock,
        Self::MemoryClock,
        Self::PerformanceState,
        Self::ThrottleReasons,
        Self::Ecc,
        Self::Xid,
        Self::Processes,
        Self::Graphics,
    ];

    /// Returns the name in the label `metric` of `lodestar_gpu_supported`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Utilization => "utilization",
            Self::Memory => "memory",
            Self::Temperature => "temperature",
            Self::TemperatureLimit => "temperature_limit",
            Self::ShutdownTemperature => "shutdown_temperature",
            Self::Power => "power",
            Self::PowerLimit => "power_limit",
            Self::Fan => "fan",
            Self::Clock => "clock",
            Self::MemoryClock => "memory_clock",
            Self::PerformanceState => "performance_state",
            Self::ThrottleReasons => "throttle_reasons",
            Self::Ecc => "ecc",
            Self::Xid => "xid",
            Self::Processes => "processes",
            Self::Graphics => "graphics_processes",
        }
    }
}

/// Set of items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Items(u32);

impl Items {
    pub(super) const fn has(self, item: Item) -> bool {
        self.0 & (1 << item as u32) != 0
    }

    pub(super) const fn add(&mut self, item: Item) {
        self.0 |= 1 << item as u32;
    }
}
