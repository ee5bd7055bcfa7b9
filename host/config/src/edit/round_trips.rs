//! Round trips: installing, switching and removing a module leaves the file unchanged, byte by
//! byte.

use proptest::prelude::*;

use super::{add_section, remove_section, set_enabled};

/// Files as people keep them; none has a section of `hour_guard`, `sink` or `misbehaver`.
const FILES: &[&str] = &[
    include_str!("../../../../config/modules.yaml"),
    "modules:\n",
    "modules:",
    "modules: {}\n",
    "modules: {} # none yet\nbus: {}\n",
    "modules: {b: {}}\n",
    "modules: { b: {x: 1}, c: {} }",
    "modules: # all\n  # none\n\nbus: {}\n",
    "modules:\n    # x: 1\n  # none\n",
    "modules:\n\n    # x: 1\n",
    "modules:\n  b: {} # b\n\n# tail\nbus: {}\n",
    "modules:\n  b:\n    y: 1",
    "modules:\n  b:\n    y: 1\n    # z: 2",
    "modules:\n  b:\n    y: 1\n\n    # z: 2\n  # at the names\n    # and deeper\nbus: {}\n",
    "modules:\n  b:\n    y: 1\n#    z: 2\n    x: 3\n    # w: 4\n# tail\n",
    "modules:\n  b:\n  # c:\n  #   x: 1\n",
    "modules:\n  b: {}\n\n\n   ",
    "modules:\n    b:\n            y: |\n                # text\n    # c\n",
    "modules:\n  b:\n    y: |+\n      text\n\n\nbus: {}\n",
    "bus:\n  # a: 1\nmodules:\n  b:\n    # nothing\n",
    "modules:\n  'b': &b\n    y: 1\n    # z: 2\n  c: *b\n  # d\n",
];

const MODULES: [&str; 3] = ["hour_guard", "sink", "misbehaver"];

#[derive(Debug, Clone, Copy)]
enum Step {
    Install(&'static str),
    Enable(&'static str),
    Disable(&'static str),
    Remove(&'static str),
}

fn taken(text: &str, step: Step) -> String {
    let notes = |module| [format!("{module} 0.1.0: does things"), "limit: 5".to_owned()];
    let done = match step {
        // As the daemon: a module that has a section keeps it.
        Step::Install(module) if text.contains(&format!("{module}:\n")) => return text.to_owned(),
        Step::Install(module) => add_section(text, module, &notes(module)).map(|it| it.text),
        Step::Enable(module) => set_enabled(text, module, true).map(|it| it.text),
        Step::Disable(module) => set_enabled(text, module, false).map(|it| it.text),
        Step::Remove(module) => remove_section(text, module)
            .map(|removed| removed.map_or_else(|| text.to_owned(), |(text, _)| text)),
    };
    done.unwrap_or_else(|error| panic!("{step:?}: {error}\n{text}"))
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(vec![Step::Install, Step::Enable, Step::Disable, Step::Remove]);
    (kind, prop::sample::select(MODULES.to_vec())).prop_map(|(kind, module)| kind(module))
}

/// Checks steps on a file: all that was there stays, in its order, and nothing else stays.
fn check(file: &str, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut text = file.to_owned();
    for step in steps {
        text = taken(&text, *step);
        let mut lines = text.lines();
        for old in file.lines().filter(|line| !line.starts_with("modules:")) {
            prop_assert!(lines.any(|new| new == old), "{step:?} took {old:?} from\n{text}");
        }
    }
    let text = MODULES.iter().fold(text, |text, module| taken(&text, Step::Remove(module)));
    prop_assert_eq!(text, file, "{:?}", steps);
    Ok(())
}

#[test]
fn the_comments_of_a_module_stay_with_it() {
    let notes = ["hour_guard 0.1.0".to_owned()];
    let text = add_section(FILES[0], "hour_guard", &notes).expect("it is valid").text;
    let place = |line: &str| text.find(line).unwrap_or_else(|| panic!("{line} is gone: {text}"));
    let order = ["  usage_tracker:", "# retention_days: 90", "  hour_guard:", "# Every section"];
    assert!(order.map(place).is_sorted(), "{text}");
    let text = set_enabled(&text, "misbehaver", true).expect("it is valid").text;
    let place = |line: &str| text.find(line).unwrap_or_else(|| panic!("{line} is gone: {text}"));
    assert!(["# hour_guard 0.1.0", "  misbehaver:"].map(place).is_sorted(), "{text}");
}

#[test]
fn every_file_comes_back() {
    for file in FILES {
        for file in [(*file).to_owned(), file.replace('\n', "\r\n")] {
            let installs = MODULES.map(Step::Install);
            for steps in [&installs[..1], &[Step::Enable("sink")], &installs] {
                check(&file, steps).unwrap_or_else(|error| panic!("{file:?}: {error}"));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_steps_leave_what_was_there(
        file in prop::sample::select(FILES.to_vec()),
        crlf: bool,
        steps in prop::collection::vec(step(), 0..8),
    ) {
        let file = if crlf { file.replace('\n', "\r\n") } else { file.to_owned() };
        check(&file, &steps)?;
    }
}
