use proptest::prelude::*;

use super::*;

#[test]
fn edits_in_place() {
    let check = |text: &str, expected: &str| {
        let edited = set_enabled(text, "a", true).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert_eq!(edited.text, expected, "{text:?}");
        let line = edited.text.lines().nth(edited.line as usize - 1).unwrap_or_default();
        assert!(line.contains("enabled"), "{text:?}: line {} is {line:?}", edited.line);
    };
    for (text, expected) in VALUES.iter().chain(ADDED) {
        check(text, expected);
        check(&text.replace('\n', "\r\n"), &expected.replace('\n', "\r\n"));
    }
}

/// Edits of a text that has the key.
const VALUES: &[(&str, &str)] = &[
    (
        "# c\nmodules:\n  a:\n    enabled: false # why\n    x: 1\n",
        "# c\nmodules:\n  a:\n    enabled: true # why\n    x: 1\n",
    ),
    (
        "modules:\n  b: {enabled: false}\n  a: {x: 1, enabled: false} # c\n",
        "modules:\n  b: {enabled: false}\n  a: {x: 1, enabled: true} # c\n",
    ),
    ("modules:\n  \"a\":\n    'enabled':   false", "modules:\n  \"a\":\n    'enabled':   true"),
    ("modules: {a: {enabled: false}}\n", "modules: {a: {enabled: true}}\n"),
    ("modules:\n  a:\n    enabled:\n    x: 1\n", "modules:\n  a:\n    enabled: true\n    x: 1\n"),
    ("modules:\n  a:\n    enabled: 'no'\n", "modules:\n  a:\n    enabled: true\n"),
    (
        "modules:\n  b: {enabled: &on true}\n  a:\n    enabled: false\n  c: {enabled: *on}\n",
        "modules:\n  b: {enabled: &on true}\n  a:\n    enabled: true\n  c: {enabled: *on}\n",
    ),
];

/// Edits of a text without the key, its section, or `modules` itself.
const ADDED: &[(&str, &str)] = &[
    (
        "modules:\n  a:\n    # enabled: false\n    x: 1 # one\n  # next\n  b: {}\n",
        concat!(
            "modules:\n  a:\n    # enabled: false\n    x: 1 # one\n    enabled: true\n",
            "  # next\n  b: {}\n",
        ),
    ),
    (
        "modules:\n  a: # null\n\n  # b is\n  b:\n    y: 1\n",
        "modules:\n  a: # null\n    enabled: true\n\n  # b is\n  b:\n    y: 1\n",
    ),
    ("modules:\n  a:\n", "modules:\n  a:\n    enabled: true\n"),
    ("modules:\n  a: {}\n", "modules:\n  a: {enabled: true}\n"),
    (
        "modules:\n  b:\n    y: 1\n\n# tail\nbus: {}\n",
        "modules:\n  b:\n    y: 1\n  a:\n    enabled: true\n\n# tail\nbus: {}\n",
    ),
    ("modules:\n  b:\n    y: 1", "modules:\n  b:\n    y: 1\n  a:\n    enabled: true"),
    (
        "modules:\n    b:\n        y: |\n            text\n",
        "modules:\n    b:\n        y: |\n            text\n    a:\n      enabled: true\n",
    ),
    ("modules: {b: {x: 1}}\n", "modules: {b: {x: 1}, a: {enabled: true}}\n"),
    ("modules: {}\n", "modules: {a: {enabled: true}}\n"),
    ("modules:\nbus: {}\n", "modules:\n  a:\n    enabled: true\nbus: {}\n"),
    (
        "modules: ~ # none\n# tail\nbus: {}\n",
        "modules:  # none\n  a:\n    enabled: true\n# tail\nbus: {}\n",
    ),
    ("modules:\n  # none\n", "modules:\n  a:\n    enabled: true\n  # none\n"),
    ("bus: {} # b\n", "bus: {} # b\nmodules:\n  a:\n    enabled: true\n"),
    ("{bus: {}}\n", "{bus: {}, modules: {a: {enabled: true}}}\n"),
    ("# only\n", "# only\nmodules:\n  a:\n    enabled: true\n"),
    ("---\n# only\n", "---\n# only\nmodules:\n  a:\n    enabled: true\n"),
];

#[test]
fn writes_the_first_section_of_an_empty_file() {
    let edited = set_enabled("", "a", false).expect("it is valid");
    assert_eq!(edited.text, "modules:\n  a:\n    enabled: false\n");
    assert_eq!((edited.line, edited.before, edited.after), (3, None, false));
    let edited = set_enabled("modules:", "a", true).expect("it is valid");
    assert_eq!(edited.text, "modules:\n  a:\n    enabled: true");
}

#[test]
fn tells_what_was_and_leaves_alone_what_is_right() {
    let text = "modules:\n  a:\n    enabled: true   # c\n";
    let same = set_enabled(text, "a", true).expect("it is valid");
    assert_eq!(same, Edited { text: text.to_owned(), line: 3, before: Some(true), after: true });
    let off = set_enabled(text, "a", false).expect("it is valid");
    assert_eq!(off.text, "modules:\n  a:\n    enabled: false   # c\n");
    assert_eq!((off.line, off.before, off.after), (3, Some(true), false));
}

#[test]
fn refuses_what_would_change_something_else() {
    let check = |text: &str, expected: &str| {
        let error = set_enabled(text, "a", true).expect_err(text).to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
    };
    check("modules:\n  a: &x\n    enabled: false\n  b: *x\n", "(see line 2) by way of an anchor");
    check("modules:\n  b: &x {enabled: false, n: 1}\n  a: *x\n", "(see line 3)");
    check("modules:\n  a: {enabled: &x false}\n  b: {enabled: *x}\n", "`enabled: true` into");
    check("modules: 5\n", "modules.yaml:1:10: modules: must be a map of keys, but is a number");
    check("- modules\n", "modules.yaml:1:1: must be a map of keys, but is a list");
    check("modules:\n  a: on\n", "modules.yaml:2:6: modules.a: must be a map");
    check("modules:\n  a: [1\n", "the file cannot be edited: modules.yaml:2:6: not valid YAML");
    assert!(set_enabled("", "../a", true).expect_err("a path").to_string().contains("no name"));
}

fn comment() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z#:{}'é ]{0,12}".prop_map(|text| format!(" # {text}"))]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,8}",
        "\"[a-z:{} ]{0,8}\"",
        "'[a-z#, ]{0,8}'",
        (0..9999u32).prop_map(|number| number.to_string()),
        Just("[1, two, {three: 3}]".to_owned()),
        Just("{deep: {er: true}}".to_owned()),
        Just("|\n        text # no comment\n\n        more".to_owned()),
        Just(String::new()),
    ]
}

/// Generates a section: its body of comments and keys, and perhaps `enabled`.
fn section(name: &'static str) -> impl Strategy<Value = String> {
    let switch =
        prop_oneof![Just(None), any::<bool>().prop_map(|value| Some(format!("enabled: {value}"))),];
    let keys = prop::collection::vec((value(), comment(), any::<bool>()), 0..4);
    (switch, keys, comment(), 0..3usize).prop_map(move |(switch, keys, head, blank)| {
        let mut lines = vec![format!("  {name}:{head}")];
        for (index, (value, comment, above)) in keys.into_iter().enumerate() {
            if above {
                lines.push(format!("    # above {index}"));
            }
            let comment = if value.starts_with('|') { String::new() } else { comment };
            lines.push(format!("    key_{index}: {value}{comment}"));
        }
        let at = lines.len().min(2);
        lines.splice(at..at, switch.map(|switch| format!("    {switch} # switch")));
        lines.extend(std::iter::repeat_n(String::new(), blank));
        lines.join("\n") + "\n"
    })
}

fn file() -> impl Strategy<Value = String> {
    let parts = (section("a"), section("b"), section("other"));
    (parts, any::<[bool; 6]>()).prop_map(
        |((a, b, other), [with_a, head, tail, crlf, cut, swap])| {
            let mut text = if head { "# head\nlog: {level: info} # log\n" } else { "" }.to_owned();
            text.push_str("modules: # all\n");
            let a = if with_a { a } else { String::new() };
            text.push_str(&if swap { [b, a, other] } else { [a, b, other] }.concat());
            text.push_str(if tail { "# tail\nbus: {}\n" } else { "" });
            let text = if cut { text.trim_end().to_owned() } else { text };
            if crlf { text.replace('\n', "\r\n") } else { text }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_the_asked_key_and_nothing_else(text in file(), enabled: bool) {
        let mut wanted = Node::parse(&text, Path::new("m.yaml"))
            .map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        let edited = set_enabled(&text, "a", enabled)
            .map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        let path = ["modules", "a", "enabled"].map(str::to_owned);
        overlay(&mut wanted, &path, Yaml::Bool(enabled), &"".into());
        let new = Node::parse(&edited.text, Path::new("m.yaml"))
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(new.same(&wanted), "{}", edited.text);
        let mut lines = edited.text.lines();
        for old in text.lines().filter(|line| !line.contains("enabled")) {
            prop_assert!(lines.any(|new| new == old), "{old:?} is gone from\n{}", edited.text);
        }
        prop_assert_eq!(edited.text.matches('#').count(), text.matches('#').count());
        prop_assert_eq!(edited.text.ends_with('\n'), text.ends_with('\n'));
        prop_assert_eq!(edited.text.contains("\r\n"), text.contains("\r\n"));
        let again = set_enabled(&edited.text, "a", enabled)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(again.text, edited.text);
    }
}
