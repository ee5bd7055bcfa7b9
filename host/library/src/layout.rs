//! The comparison of a module's types with the host's, checked both ways.
//!
//! `abi_stable`'s own check goes one way, so that it refuses an older module in a newer host, and
//! keeps pointers into libraries in a global cache. This one goes both ways with a fresh cache.

use std::fmt;

use lodestar_abi::{
    ModuleRoot_Ref,
    abi_stable::{
        StableAbi,
        abi_stability::abi_checking::{
            AbiInstability, AbiInstabilityErrors, CheckingGlobals,
            check_layout_compatibility_with_globals,
        },
        type_layout::{TLFieldOrFunction, TypeLayout},
    },
};
use serde::{Deserialize, Serialize};

/// A place where the module's types are not the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Path of the place, and the type whose field it is:
    /// `create > request > CreateRequest.config`.
    pub place: String,
    /// Property that is compared.
    pub what: String,
    /// Value in this host.
    pub expected: String,
    /// Value in the module.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, what, expected, found } = self;
        write!(f, "{place}: {what}: expected {expected}, found {found}")
    }
}

/// Returns the differences between the module's root type and the host's.
pub(super) fn differences(module: &'static TypeLayout) -> Vec<Difference> {
    let host = <ModuleRoot_Ref as StableAbi>::LAYOUT;
    let Err(forward) = check(host, module) else { return Vec::new() };
    // An older module: its types are a prefix of ours.
    if check(module, host).is_ok() {
        return Vec::new();
    }
    summary(&forward)
}

fn check(
    interface: &'static TypeLayout,
    implementation: &'static TypeLayout,
) -> Result<(), AbiInstabilityErrors> {
    let fresh = CheckingGlobals::new();
    check_layout_compatibility_with_globals(interface, implementation, &fresh)
}

/// Returns the few differences that name a field; the whole report has thousands of lines.
fn summary(errors: &AbiInstabilityErrors) -> Vec<Difference> {
    let mut differences: Vec<Difference> = Vec::new();
    for error in &errors.errors {
        let steps: Vec<&TLFieldOrFunction> =
            error.stack_trace.iter().map(|step| &step.found).collect();
        let place = place(&steps);
        for instability in &error.errs {
            let (what, expected, found) = describe(instability);
            let difference = Difference { place: place.clone(), what, expected, found };
            if !differences.contains(&difference) {
                differences.push(difference);
            }
        }
    }
    // The root of the trouble is the deepest one: sizes of what contains it differ as well.
    differences.sort_by_key(|difference| std::cmp::Reverse(difference.place.matches('>').count()));
    differences
}

/// Returns a place as `create > request > CreateRequest.config`: the path, and the type whose field
/// differs.
fn place(steps: &[&TLFieldOrFunction]) -> String {
    let Some((last, way)) = steps.split_last() else { return "ModuleRoot".to_owned() };
    let mut place: String = way.iter().map(|step| format!("{} > ", name(step))).collect();
    if let Some(TLFieldOrFunction::Field(container)) = way.last() {
        place.push_str(container.layout().name());
        place.push('.');
    }
    place.push_str(name(last));
    place
}

fn name(step: &TLFieldOrFunction) -> &str {
    match step {
        TLFieldOrFunction::Field(field) => field.name(),
        TLFieldOrFunction::Function(function) => function.name.as_str(),
    }
}

fn describe(instability: &AbiInstability) -> (String, String, String) {
    use AbiInstability as A;
    let words = |what: &str, expected: &dyn fmt::Display, found: &dyn fmt::Display| {
        (what.to_owned(), expected.to_string(), found.to_string())
    };
    match instability {
        A::Name(pair) => words("type", &pair.expected, &pair.found),
        A::Package(pair) => words("package", &pair.expected, &pair.found),
        A::PackageVersion(pair) => words("package version", &pair.expected, &pair.found),
        A::Size(pair) => words("size in bytes", &pair.expected, &pair.found),
        A::Alignment(pair) => words("alignment in bytes", &pair.expected, &pair.found),
        A::FieldCountMismatch(pair) => words("number of fields", &pair.expected, &pair.found),
        A::MismatchedPrefixSize(pair) => words("number of fields", &pair.expected, &pair.found),
        A::UnexpectedField(pair) => words("field", &pair.expected.name(), &pair.found.name()),
        A::TooManyVariants(pair) => words("number of variants", &pair.expected, &pair.found),
        A::UnexpectedVariant(pair) => words("variant", &pair.expected, &pair.found),
        A::MismatchedPrimitive(pair) => (
            "type".to_owned(),
            format!("{:?}", pair.expected).to_lowercase(),
            format!("{:?}", pair.found).to_lowercase(),
        ),
        A::FnLifetimeMismatch(pair) => words("signature", &pair.expected, &pair.found),
        A::FnQualifierMismatch(pair) => words("signature", &pair.expected, &pair.found),
        other => {
            let text = format!("{other:?}");
            let kind = text.split(['(', '{', ' ']).next().unwrap_or_default().to_owned();
            (kind, "that of this host".to_owned(), "another".to_owned())
        }
    }
}

#[cfg(test)]
mod golden;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_types_fit() {
        assert_eq!(differences(<ModuleRoot_Ref as StableAbi>::LAYOUT), Vec::new());
    }

    #[test]
    fn other_types_do_not() {
        let differences =
            summary(&check(<u32 as StableAbi>::LAYOUT, u64::LAYOUT).expect_err("they differ"));
        assert!(
            differences.iter().any(|difference| difference.to_string().contains("expected u32")),
            "{differences:?}"
        );
    }
}
