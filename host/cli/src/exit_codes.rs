//! The exit codes of `lodestar`, all of them.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed; the named module, session or event does not exist |
//! | 2 | usage: unknown verb, command or option, or an argument that does not fit |
//! | 3 | the daemon cannot be reached, `doctor` included |
//! | 4 | refused: validation, ABI, permission, a file of `--out` that is there already |
//! | 5 | timed out |
//! | 128 + n | ended by signal n while writing `--out FILE`, which is removed |
//!
//! A command of a module may answer with a code of its own, as monitoring plugins do: `lodestar
//! health` with 0 healthy, 1 degraded, 2 down, 3 everything else.

use lodestar_api::ProblemCode;

/// Success.
pub(crate) const DONE: u8 = 0;
/// Failure.
pub(crate) const FAILED: u8 = 1;
/// A command line that is not valid.
pub(crate) const USAGE: u8 = 2;
/// A daemon that does not answer.
pub(crate) const NOT_REACHABLE: u8 = 3;
/// A request that is not valid or not allowed.
pub(crate) const REFUSED: u8 = 4;
/// A deadline that has passed.
pub(crate) const TIMED_OUT: u8 = 5;
/// The end by a signal: this is added to its number.
pub(crate) const SIGNAL: u8 = 128;

/// The table, as `lodestar --help` shows it.
pub(crate) const HELP: &str = "\
Exit codes: 0 done, 1 failed or no such module, 2 usage, 3 daemon not reachable, 4 refused \
(validation, ABI, permission, a file that is there already), 5 timed out. A command of a module \
may answer with a code of its own.";

/// Returns the exit code for a problem that the daemon reports.
pub(crate) const fn of(code: ProblemCode) -> u8 {
    match code {
        ProblemCode::Refused | ProblemCode::Invalid => REFUSED,
        ProblemCode::Timeout => TIMED_OUT,
        ProblemCode::NotFound
        | ProblemCode::Busy
        | ProblemCode::Unavailable
        | ProblemCode::Failed => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_its_code() {
        let check = |code: &str, expected: u8| {
            let code = serde_json::from_value(code.into()).expect("a code");
            assert_eq!(of(code), expected, "{code:?}");
        };
        check("not_found", 1);
        check("refused", 4);
        check("invalid", 4);
        check("busy", 1);
        check("failed", 1);
        check("timeout", 5);
        check("unavailable", 1);
        check("one_of_a_later_version", 1);
    }

    #[test]
    fn the_help_names_the_codes_of_the_table() {
        let meanings = [
            (DONE, "done"),
            (FAILED, "failed"),
            (USAGE, "usage"),
            (NOT_REACHABLE, "daemon not reachable"),
            (REFUSED, "refused"),
            (TIMED_OUT, "timed out"),
        ];
        for (code, meaning) in meanings {
            assert!(HELP.contains(&format!("{code} {meaning}")), "{code} {meaning}");
        }
    }
}
