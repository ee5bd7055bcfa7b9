//! Thirty synthetic days of a machine: probes every 5 s of which 2% fail for no reason, one outage,
//! one hour of flapping, a disk that slowly fills, a GPU that gets hot, and requests all along.
//! They
//! are played to the monitor and its notifier, and to a naive monitor for which one bad reading is
//! a trouble and one good reading its end.
//!
//! The numbers are random and the same everywhere: they come from a seed.

pub(crate) mod naive;
pub(crate) mod ours;
pub(crate) mod verdict;

/// Months that are played, each from a seed of its own.
pub(crate) const MONTHS: u32 = 8;
/// Time between two probes and readings, in seconds.
pub(crate) const INTERVAL_S: u64 = 5;
const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 24 * HOUR_S;
const DAYS: u64 = 30;

/// Part of the probes that fail for no reason.
const BLIPS: f64 = 0.02;

/// The outage of the router, in seconds since the start. It begins just after a probe: it cannot be
/// seen before the next one.
pub(crate) const OUTAGE: Span = Span::new(7 * DAY_S + 10 * HOUR_S + 1, 600);
/// The hour in which the router flaps: 45 s down, 195 s up.
pub(crate) const FLAPPING: Span = Span::new(12 * DAY_S + 15 * HOUR_S + 1, HOUR_S);
const FLAP_S: u64 = 240;
const FLAP_DOWN_S: u64 = 45;
/// The leak, and what it fills an hour; it is cleaned up at its end.
pub(crate) const LEAK: Span = Span::new(15 * DAY_S, 70 * HOUR_S);
const LEAK_PER_HOUR: f64 = 0.005;
/// The time for which the GPU is hot.
pub(crate) const HEAT: Span = Span::new(20 * DAY_S + 14 * HOUR_S, 2 * HOUR_S);

/// Limits of the rules that the trace is about.
pub(crate) const FULL: f64 = 0.9;
pub(crate) const HOT: f64 = 88.0;

/// A time, in seconds since the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) from_s: u64,
    pub(crate) to_s: u64,
}

impl Span {
    const fn new(from_s: u64, length_s: u64) -> Self {
        Self { from_s, to_s: from_s + length_s }
    }

    pub(crate) const fn has(self, at_s: u64) -> bool {
        self.from_s <= at_s && at_s < self.to_s
    }
}

/// Readings of one moment.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) at_s: u64,
    /// Outcomes of the probes of the router and of a provider.
    pub(crate) router: bool,
    pub(crate) provider: bool,
    /// Fraction of the disk in use.
    pub(crate) disk: f64,
    /// Temperature of the GPU.
    pub(crate) gpu: f64,
    /// Request that ended since the last moment: whether it was answered, and after how many
    /// milliseconds.
    pub(crate) request: Option<(bool, u32)>,
}

/// Pseudo-random numbers: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number from 0 to 1.
    fn part(&mut self) -> f64 {
        let bits = u32::try_from(self.next() >> 32).unwrap_or(u32::MAX);
        f64::from(bits) / f64::from(u32::MAX)
    }

    fn happens(&mut self, chance: f64) -> bool {
        self.part() < chance
    }

    /// Returns a number from `-by` to `by`.
    fn around(&mut self, by: f64) -> f64 {
        (self.part() * 2.0 - 1.0) * by
    }
}

/// Returns the readings of a month.
pub(crate) fn month(seed: u64) -> impl Iterator<Item = Reading> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    (0..DAYS * DAY_S / INTERVAL_S).map(move |step| {
        let at_s = step * INTERVAL_S;
        let flaps = FLAPPING.has(at_s) && (at_s - FLAPPING.from_s) % FLAP_S < FLAP_DOWN_S;
        let is_down = OUTAGE.has(at_s) || flaps;
        let up = |random: &mut Random| !random.happens(BLIPS);
        let router = up(&mut random) && !is_down;
        let provider = up(&mut random);
        let disk = 0.6 + random.around(0.000_2) + leaked(at_s);
        let gpu = if HEAT.has(at_s) { 90.5 } else { 70.0 };
        let gpu = gpu + random.around(2.0);
        // One request in 20 s on average, of which two in a thousand fail.
        let asks = random.happens(0.25) && !is_down;
        let (fails, took) = (random.happens(0.002), 500.0 + random.part() * 8_000.0);
        #[expect(clippy::cast_possible_truncation, reason = "it is at most 8,500")]
        #[expect(clippy::cast_sign_loss, reason = "it is at least 500")]
        let request = asks.then_some((!fails, took as u32));
        Reading { at_s, router, provider, disk, gpu, request }
    })
}

#[expect(clippy::cast_precision_loss, reason = "a month in seconds is far below 2^53")]
fn leaked(at_s: u64) -> f64 {
    if LEAK.has(at_s) { (at_s - LEAK.from_s) as f64 / HOUR_S as f64 * LEAK_PER_HOUR } else { 0.0 }
}
