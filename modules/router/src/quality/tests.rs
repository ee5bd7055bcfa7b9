use serde_json::json;

use super::{
    judge::{Said, exact, question, schema, verdict},
    *,
};

fn said(text: &str) -> Said {
    Said { text: text.to_owned(), calls: Vec::new() }
}

fn call(name: &str, arguments: Value) -> Said {
    Said { text: String::new(), calls: vec![(name.to_owned(), arguments)] }
}

#[test]
fn answers_are_the_same_but_for_case_and_spaces() {
    let check = |ours: &str, theirs: &str, is_kept: bool| {
        let found = exact(&said(ours), &said(theirs));
        let expected = if is_kept { Checked::Kept } else { Checked::Worse };
        assert_eq!(found, expected, "{ours} {theirs}");
    };
    check("Paris.", " paris\n", true);
    check("**Paris**", "Paris", true);
    check("Paris", "London", false);
    check(r#"{"a": 1, "b": [2]}"#, "```json\n{\"b\":[2],\"a\":1}\n```", true);
    check(r#"{"a": 1}"#, r#"{"a": 2}"#, false);
    let one = call("read", json!({"path": "a"}));
    assert_eq!(exact(&one, &call("read", json!({"path": "a"}))), Checked::Kept);
    assert_eq!(exact(&one, &call("read", json!({"path": "b"}))), Checked::Worse);
    assert_eq!(exact(&one, &said("a")), Checked::Worse);
}

#[test]
fn forms_are_compared_where_the_paid_answer_has_one() {
    let json = |text: &str| said(text);
    let theirs = json(r#"{"name": "x", "tags": ["a", "b"], "age": 3}"#);
    let check = |ours: &str, expected| assert_eq!(schema(&json(ours), &theirs), expected, "{ours}");
    check(r#"{"name": "y", "tags": ["c"], "age": 9}"#, Checked::Kept);
    check(r#"{"name": "y", "tags": [], "age": 9}"#, Checked::Kept);
    check(r#"{"name": "y", "tags": [1], "age": 9}"#, Checked::Worse);
    check(r#"{"name": "y", "age": 9}"#, Checked::Worse);
    check("Here is the JSON: {}", Checked::Worse);
    assert_eq!(schema(&said("a"), &said("b")), Checked::Unknown);
    let call = call("read", json!({"path": "a"}));
    assert_eq!(schema(&call, &self::call("read", json!({"path": "b"}))), Checked::Kept);
    assert_eq!(schema(&call, &self::call("write", json!({"path": "a"}))), Checked::Worse);
    assert_eq!(schema(&self::call("read", json!({"file": 1})), &call), Checked::Worse);
}

#[test]
fn a_judge_says_one_letter() {
    let check = |text: &str, ours_first: bool, expected| {
        assert_eq!(verdict(text, ours_first), expected, "{text}");
    };
    check("A", true, Checked::Kept);
    check(" **B**.", true, Checked::Worse);
    check("b", false, Checked::Kept);
    check("T", false, Checked::Kept);
    check("A and B are", true, Checked::Unknown);
    check("", true, Checked::Unknown);
    let asked = json!({"messages": [{"role": "system", "content": "s"},
        {"role": "user", "content": "which?"}]});
    let question = question(&asked, &said("one"), &said("two")).to_string();
    assert!(question.contains("which?") && question.contains("one"), "{question}");
}

#[test]
fn settings_that_contradict_themselves_are_refused() {
    let check = |options: Value, is_right: bool| {
        let read: QualityOptions = serde_json::from_value(options.clone()).expect("they are read");
        assert_eq!(read.check().is_ok(), is_right, "{options}");
    };
    check(json!({}), true);
    check(json!({"sample": 0.05, "judge": "model", "judge_model": "m", "usd_per_day": 2}), true);
    check(json!({"sample": 1.5}), false);
    check(json!({"sample": -0.1}), false);
    check(json!({"judge_model": "m"}), false);
    check(json!({"usd_per_day": -1}), false);
}
