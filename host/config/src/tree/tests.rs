use super::*;

fn parse(text: &str) -> Result<Node, ConfigError> {
    Node::parse(text, Path::new("m.yaml"))
}

#[test]
fn reads_scalars_as_yaml_1_2() {
    let check = |text: &str, expected: Value| {
        let node = parse(&format!("k: {text}\n")).unwrap_or_else(|e| panic!("{text}: {e}"));
        let json = node.get("k").map(|entry| entry.node.to_json());
        assert_eq!(json, Some(expected), "{text}");
    };
    check("no", "no".into());
    check("on", "on".into());
    check("true", true.into());
    check("'true'", "true".into());
    check("010", 10.into());
    check("-010", (-10).into());
    check("0o10", 8.into());
    check("0x1F", 31.into());
    check("+5", 5.into());
    check("1.0", 1.0.into());
    check("1e3", 1000.0.into());
    check("18446744073709551615", u64::MAX.into());
    check("12:30", "12:30".into());
    check("2026-11-01", "2026-11-01".into());
    check("~", Value::Null);
    check("[1, x]", serde_json::json!([1, "x"]));
    check("{a: {b: null}}", serde_json::json!({"a": {}}));
}

#[test]
fn says_where_a_file_is_not_yaml() {
    let check = |text: &str, expected: &str| {
        let error = parse(text).err().unwrap_or_else(|| panic!("{text:?} was taken"));
        assert!(error.to_string().starts_with(expected), "{text:?}: {error}");
    };
    check("a: [1,\n", "m.yaml:1:4: not valid YAML: unclosed bracket");
    check("a: b: c\n", "m.yaml:1:5: not valid YAML: mapping values are not allowed");
    check("a: 1\nb:\n  a: 1\n  a: 2\n", "m.yaml:4:3: the key `a` is given twice in the same");
    check("a: 1\n---\nb: 2\n", "m.yaml:3:1: the file holds more than one YAML document");
    check("a: *x\n", "m.yaml:1:4: an alias names an anchor that is not in the file; define");
    check("a: .inf\n", "m.yaml:1:4: a number must be finite");
    check("a: \0\n", "m.yaml:1:4: not valid YAML: unexpected character");
    check("~: 1\n", "m.yaml:1:1: a key must be a text");
    check("[a]: 1\n", "m.yaml:1:1: a key must be a text");
}

#[test]
fn refuses_bombs() {
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let row = vec![format!("*a{}", level - 1); 9].join(", ");
        aliases.push_str(&format!("a{level}: &a{level} [{row}]\n"));
    }
    let nested: String = (0..200).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    for bomb in [aliases, nested, "[".repeat(100_000), "{a: ".repeat(5_000)] {
        let error = parse(&bomb).err().expect("it is refused").to_string();
        assert!(error.contains("expands beyond its limits (32 levels"), "{error}");
    }
    let long = format!("a: {}\n", "x".repeat(MAX_BYTES));
    let error = parse(&long).err().expect("it is refused").to_string();
    assert!(error.contains("the limit is 262144"), "{error}");
}

#[test]
fn keeps_places_through_aliases_and_merges() {
    let text = "a: &x\n  n: 1\nb: *x\nc:\n  <<: *x\n  m: 2\n";
    let node = parse(text).expect("it is YAML");
    for map in ["a", "b", "c"] {
        let entry = node.get(map).and_then(|map| map.node.get("n")).expect("n is there");
        assert_eq!(entry.place, SourceLocation::File { line: 2, column: 3 }, "{map}");
    }
}

#[test]
fn takes_an_empty_file_as_null() {
    for text in ["", "\n", "# only a comment\n", "---\n", "~\n", "\u{feff}"] {
        let node = parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert!(matches!(node.value, Yaml::Null), "{text:?}");
    }
}
