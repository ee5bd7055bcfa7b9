//! Gate of the memory that the server takes with the version.

use serde_json::json;

use super::{Fault, Limits, Measured, Session, Strategy};
use crate::deploy::{Memory as Told, machine_memory};

/// Bytes of a MB.
const MB: f64 = 1e6;

/// Memory of the server after it answered, where it can be told.
pub(super) struct Memory;

impl Strategy for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn limit(&self, limits: &Limits) -> Option<f64> {
        limits.memory_mb.map(|it| it as f64)
    }

    fn measure(&self, session: &mut Session<'_>) -> Result<Measured, Fault> {
        let told = session.memory()?;
        judge(told, session.limits(), machine_memory())
    }
}

fn judge(told: Told, limits: &Limits, machine: Option<u64>) -> Result<Measured, Fault> {
    match told {
        Told::Untold { reason } => Err(Fault::NotApplicable(format!("not measured: {reason}"))),
        Told::Bytes { bytes, of, is_here } => {
            let machine = machine.filter(|_| is_here).map(|bytes| bytes as f64 / MB);
            let limit = limits.memory_mb.map(|it| it as f64).or(machine);
            let value = bytes as f64 / MB;
            let evidence = json!({"of": of, "machine_mb": machine});
            Ok(Measured { passed: limit.is_none_or(|it| value <= it), value, limit, evidence })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_that_of_the_operator_or_of_the_machine() {
        let check = |megabytes: u64, is_here: bool, limit: Option<u64>, expected: bool| {
            let told = Told::Bytes { bytes: megabytes * 1_000_000, of: "the server", is_here };
            let limits = Limits { memory_mb: limit, ..Limits::default() };
            let measured = judge(told, &limits, Some(8_000_000_000)).expect("it is measured");
            assert_eq!(measured.passed, expected, "{megabytes} {is_here} {limit:?}");
            assert_eq!(measured.limit.is_none(), !is_here && limit.is_none());
        };
        check(900, true, None, true);
        check(9_000, true, None, false);
        check(9_000, false, None, true);
        check(900, true, Some(800), false);
        check(9_000, false, Some(800), false);
        let told = Told::Untold { reason: "it does not say" };
        let untold = judge(told, &Limits::default(), None);
        assert!(matches!(untold, Err(Fault::NotApplicable(words)) if words.contains("not say")));
    }
}
