//! Tests of the four editors: what is set is there, nothing else changes, and what is taken out
//! again leaves no trace.

use serde_json::json;

use super::*;

fn key(path: &str) -> Vec<String> {
    path.split('/').map(str::to_owned).collect()
}

/// Sets values one by one and takes them out again in reverse, with the maps that were made.
fn there_and_back(format: Format, text: &str, settings: &[(&str, Value)]) -> String {
    let mut edited = text.to_owned();
    let mut made = Vec::new();
    for (path, value) in settings {
        let path = key(path);
        let tree = format.tree(&edited).expect(text);
        for depth in 1..=path.len() {
            if get(&tree, &path[..depth]).is_none() {
                made.push(path[..depth].to_vec());
            }
        }
        edited = format.set(&edited, &path, value).expect(text);
        assert_eq!(get(&format.tree(&edited).expect(text), &path), Some(value), "{edited}");
    }
    let mut back = edited.clone();
    for path in made.iter().rev() {
        back = format.removed(&back, path).expect(&back);
    }
    assert_eq!(back, text, "{edited}");
    edited
}

fn json_settings() -> Vec<(&'static str, Value)> {
    vec![("env/A", json!("1")), ("env/B", json!("x\"y")), ("t/deep/er", json!({"o": [1, true]}))]
}

#[test]
fn json_of_many_shapes_comes_back_byte_for_byte() {
    for text in [
        "{}",
        "{}\n",
        "{\"a\": 1}",
        "{ \"a\": 1 }\n",
        "{\n  \"a\": 1\n}\n",
        "{\n\t\"a\": 1,\n\t\"b\": {\n\t\t\"c\": []\n\t}\n}",
        "{\n  \"a\": 1, // why\n  /* more */ \"b\": 2 // last\n}\n",
        "{\n  \"a\": 1,\n  \"b\": 2, // trailing\n}\n",
        "// head\n{\n  // first\n  \"a\": 1\n  // end\n}\n// tail\n",
        "{\n    \"env\": {\"Z\": \"0\"},\n    \"a\": 1\n}\n",
        "{\n  \"env\": {\n    \"Z\": \"0\"\n  }\n}\n",
        "{\n\n  \"env\": {\n    // note\n\n    \"Z\": \"0\" /* why */\n\n  },\n\n  \"a\": 1\n\n}\n",
        "{\"env\": {}}",
        "{ // c\n  \"a\": 1 }",
    ] {
        there_and_back(Format::Json, text, &json_settings());
        let windows = text.replace('\n', "\r\n");
        there_and_back(Format::Json, &windows, &json_settings());
        there_and_back(Format::Json, &format!("\u{feff}{windows}"), &json_settings());
    }
}

#[test]
fn json_is_written_as_the_file_is() {
    let edited = there_and_back(
        Format::Json,
        "{\n\t\"a\": 1 // why\n}\n",
        &[("env/A", json!("1")), ("env/B", json!("2"))],
    );
    let expected =
        "{\n\t\"a\": 1, // why\n\t\"env\": {\n\t\t\"A\": \"1\",\n\t\t\"B\": \"2\"\n\t}\n}\n";
    assert_eq!(edited, expected);
    assert_eq!(
        there_and_back(Format::Json, "{\"a\": 1}", &[("env/A", json!("1"))]),
        "{\"a\": 1, \"env\": {\"A\": \"1\"}}"
    );
    let new = Format::Json.set("", &key("env/A"), &json!(true)).expect("it is new");
    assert_eq!(new, "{\n  \"env\": {\n    \"A\": true\n  }\n}\n");
    let noted = Format::Json.set("// mine\n", &key("a"), &json!(1)).expect("it is new");
    assert_eq!(noted, "// mine\n{\n  \"a\": 1\n}\n");
}

#[test]
fn a_value_is_replaced_and_put_back_as_it_was_written() {
    let check = |format: Format, text: &str, path: &str, value: Value| {
        let path = key(path);
        let raw = format.raw(text, &path).expect(text);
        let edited = format.set(text, &path, &value).expect(text);
        assert_ne!(edited, text);
        assert_eq!(format.restored(&edited, &path, &raw).expect(&edited), text, "{edited}");
    };
    let json = "{\"a\": {\"b\" : [1, // one\n 2]}, \"c\": 1}";
    check(Format::Json, json, "a/b", json!("x"));
    check(Format::Json, "{\r\n  \"a\": \"\\u0041\"\r\n}\r\n", "a", json!(2));
    check(Format::Toml, "a = 'x' # why\nb = 2\n", "a", json!("y"));
    check(Format::Toml, "[t]\nb = { c = 1, d = [ 2 ] }", "t/b", json!("y"));
    check(Format::Toml, "[t]\nb = { c = 1, d = 2 } # n\n", "t/b/c", json!("y"));
    check(Format::Yaml, "a: x # why\nb: 'q # no' # yes\n", "a", json!("y"));
    check(Format::Yaml, "a: x\r\nb: 'q # no' # yes\r\n", "b", json!("y"));
    check(Format::Yaml, "a:\nb: 2\n", "b", json!("y"));
    check(Format::Env, "# x\nexport A = \"1 2\" # why\nB=2", "A", json!("http://y:1"));
}

#[test]
fn a_table_that_was_replaced_comes_back_with_what_it_held() {
    let text = "[otel]\n\n[otel.exporter.otlp-grpc]\nendpoint = \"x\" # mine\n\n[z]\na = 1\n";
    let path = key("otel/exporter");
    let raw = Format::Toml.raw(text, &path).expect("it is there");
    let value = json!({"otlp-http": {"endpoint": "y"}});
    let edited = Format::Toml.set(text, &path, &value).expect("it can be set");
    assert!(edited.contains("exporter = { otlp-http = { endpoint = \"y\" } }\n"), "{edited}");
    let back = Format::Toml.restored(&edited, &path, &raw).expect("it can be put back");
    assert_eq!(Format::Toml.tree(&back), Format::Toml.tree(text), "{back}");
    assert!(back.contains("endpoint = \"x\" # mine\n"), "{back}");
}

#[test]
fn toml_of_many_shapes_comes_back_byte_for_byte() {
    let settings = [
        ("model_provider", json!("lodestar")),
        ("model_providers/lodestar/name", json!("Lodestar")),
        ("model_providers/lodestar/headers", json!({"x-a": "b"})),
        ("otel/exporter", json!({"otlp-http": {"endpoint": "http://x/v1/logs"}})),
    ];
    for text in [
        "",
        "# only a note\n",
        "model = \"m\"",
        "model = \"m\" # why\n\n# the end\n",
        "# head\n\n[tui]\na = 1\n",
        "a = 1\n[otel]\nenvironment = \"dev\" # note\n\n[projects.\"/x\"]\ntrust = \"t\"\n",
        "[model_providers.mine]\nname = \"x\"\n\n[[things]]\na = 1\n\n[[things]]\na = 2\n",
        "otel = { environment = \"dev\" }\nmodel_providers = {}\n",
    ] {
        there_and_back(Format::Toml, text, &settings);
        there_and_back(Format::Toml, &text.replace('\n', "\r\n"), &settings);
    }
}

#[test]
fn lines_of_many_shapes_come_back_byte_for_byte() {
    let settings = [("openai-api-base", json!("http://x:1/v1")), ("k", json!("a b"))];
    for text in ["", "# note\n", "a: 1", "a: [1,\n  2]\nb:\n  - x\n", "---\na: 1\n"] {
        let edited = there_and_back(Format::Yaml, text, &settings);
        assert!(edited.contains("openai-api-base: \"http://x:1/v1\""), "{edited}");
        there_and_back(Format::Yaml, &text.replace('\n', "\r\n"), &settings);
    }
    for text in ["", "# note", "A=1\n\nexport B='2'\nno line\n"] {
        let edited = there_and_back(Format::Env, text, &settings);
        assert!(edited.contains("openai-api-base=http://x:1/v1"), "{edited}");
        assert!(edited.contains("k=\"a b\""), "{edited}");
    }
    let tree = Format::Env.tree("export A = \"1 2\" # why\nA=3\n#B=4\nC=\n").expect("always");
    assert_eq!(tree, json!({"A": "3", "C": ""}));
}

#[test]
fn what_is_no_setting_file_is_named_with_its_place() {
    let check = |format: Format, text: &str, expected: &str| {
        let error = format.set(text, &key("env/A"), &json!(1)).expect_err(text).to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    };
    check(Format::Json, "{\n  \"a\": 1\n  \"b\": 2\n}", "line 2, column 9: Expected comma");
    check(Format::Json, "{\"a\": 1", "line 1, column 1: Unterminated object");
    check(Format::Json, "{'a': 1}", "line 1, column 2: ");
    check(Format::Json, "[1]", "it is not a map of settings");
    check(Format::Json, "\"text\"", "it is not a map of settings");
    check(Format::Json, "{\"env\": 3}", "env is not a map of settings");
    check(Format::Json, &"[".repeat(100_000), "line 1, column 513: Maximum nesting");
    check(Format::Toml, "a = 1\nb = \n", "line 2, column ");
    check(Format::Toml, "env = 1\n", "env is not a map of settings");
    check(Format::Yaml, "a: 1\nb: [1\n", "line ");
    check(Format::Yaml, "- a\n", "it is not a map of settings");
}

#[test]
fn what_cannot_be_set_alone_is_refused() {
    let check = |text: &str| {
        let error = Format::Yaml.set(text, &key("a"), &json!("x")).expect_err(text);
        assert_eq!(error, EditError::Entangled("a".to_owned()), "{text}");
    };
    check("a:\n  - x\n  - y\n");
    check("{a: 1}\n");
    check("\"a\": 1\n");
    check("b: 1\n...\n");
}
