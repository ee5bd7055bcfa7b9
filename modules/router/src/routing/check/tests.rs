//! Tables of answers.

use serde_json::json;

use super::*;

const ASK: &str = r#"{"type": "object", "properties": {"city": {"type": "string"},
    "days": {"type": "integer", "minimum": 1}}, "required": ["city"],
    "additionalProperties": false}"#;
const TOOLS: &[Tool<'_>] = &[
    Tool { name: "weather", schema: Some(ASK) },
    Tool { name: "now", schema: None },
    Tool { name: "odd", schema: Some(r#"{"type": 7}"#) },
];

fn text(text: &str) -> AnswerText<'_> {
    AnswerText { text, tool_calls: &[], finish: Finish::Done }
}

fn failed(asked: &Asked<'_>, answer: &AnswerText<'_>) -> &'static str {
    match check(asked, answer) {
        Check::Kept => "kept",
        Check::Escalate(failure) => failure.as_str(),
    }
}

#[test]
fn calls_fit_their_tools() {
    let asked = Asked { tools: TOOLS, ..Asked::default() };
    let check = |name: &str, arguments: &str, expected: &str| {
        let calls = [ToolCall { name, arguments }];
        let answer = AnswerText { text: "", tool_calls: &calls, finish: Finish::Done };
        assert_eq!(failed(&asked, &answer), expected, "{name} {arguments}");
    };
    check("weather", r#"{"city": "Wien"}"#, "kept");
    check("weather", r#"{"city": "Wien", "days": 3}"#, "kept");
    check("weather", r#"{"city": "Wien", "days": "3"}"#, "arguments_unfit");
    check("weather", r#"{"city": "Wien", "days": 0}"#, "arguments_unfit");
    check("weather", r#"{"days": 3}"#, "arguments_unfit");
    check("weather", r#"{"city": "Wien", "unit": "C"}"#, "arguments_unfit");
    check("weather", r#"{"city": "Wi"#, "arguments_unreadable");
    check("weather", r#""Wien""#, "arguments_unreadable");
    check("weather", "", "arguments_unfit");
    check("wether", r#"{"city": "Wien"}"#, "unknown_tool");
    check("now", "", "kept");
    check("now", r#"{"anything": [1]}"#, "kept");
    // A schema that cannot be used refuses nothing.
    check("odd", "{}", "kept");
}

#[test]
fn a_call_is_no_text() {
    let asked = Asked { tools: TOOLS, ..Asked::default() };
    let check = |answer: &str, expected: &str| {
        assert_eq!(failed(&asked, &text(answer)), expected, "{answer}");
    };
    check(r#"{"name": "weather", "arguments": {"city": "Wien"}}"#, "call_in_text");
    check("```json\n{\"name\": \"now\", \"parameters\": {}}\n```", "call_in_text");
    check(r#"<tool_call>{"name": "now", "arguments": {}}</tool_call>"#, "call_in_text");
    check(r#"{"function": {"name": "now", "arguments": "{}"}}"#, "call_in_text");
    check(r#"{"name": "Ada", "arguments": 2}"#, "kept");
    check("It is sunny.", "kept");
    let asked = Asked { requires_tool: true, ..asked };
    assert_eq!(failed(&asked, &text("It is sunny.")), "no_call");
}

#[test]
fn texts_are_whole_and_say_something() {
    let asked = Asked::default();
    let check = |answer: &str, expected: &str| {
        assert_eq!(failed(&asked, &text(answer)), expected, "{answer}");
    };
    check("Vienna.", "kept");
    check(" \n", "empty");
    check("I'm sorry, but I can't help with that.", "refused");
    check("I\u{2019}m unable to browse the web.", "refused");
    check("As an AI language model, I have no opinion.", "refused");
    check("I am sorry to hear that. Let us look at the log together.", "kept");
    check("The function returns None because I don't is not a word.", "kept");
    check(
        &format!("I cannot help laughing at this: {}", "it is a long story. ".repeat(50)),
        "repeats",
    );
    check(&"the same again, ".repeat(20), "repeats");
    check(&"na".repeat(100), "repeats");
    check(&format!("| a | b |\n|{}|", "-".repeat(300)), "kept");
    check(&format!("1.{}", "0".repeat(300)), "kept");
    let cut = AnswerText { finish: Finish::Length, ..text("and then") };
    assert_eq!(failed(&asked, &cut), "truncated");
    let filtered = AnswerText { finish: Finish::Filtered, ..text("") };
    assert_eq!(failed(&asked, &filtered), "filtered");
}

#[test]
fn json_is_json_and_fits() {
    let asked = Asked { format: AnswerFormat::Schema, schema: Some(ASK), ..Asked::default() };
    let check = |answer: &str, expected: &str| {
        assert_eq!(failed(&asked, &text(answer)), expected, "{answer}");
    };
    check(r#"{"city": "Wien"}"#, "kept");
    check(r#"{"town": "Wien"}"#, "schema_unfit");
    check(r#"Here it is: {"city": "Wien"}"#, "not_json");
    check("```json\n{\"city\": \"Wien\"}\n```", "not_json");
    let asked = Asked { format: AnswerFormat::Json, ..Asked::default() };
    assert_eq!(failed(&asked, &text("[1, 2]")), "kept");
}

#[test]
fn no_schema_costs_more_than_linear_time_or_fetches_anything() {
    let check = |schema: serde_json::Value, value: &str, expected: &str| {
        let schema = schema.to_string();
        let asked =
            Asked { format: AnswerFormat::Schema, schema: Some(&schema), ..Asked::default() };
        assert_eq!(failed(&asked, &text(value)), expected, "{schema}");
    };
    let long = format!("\"{}!\"", "a".repeat(50_000));
    check(json!({"pattern": "^(a+)+$"}), &long, "schema_unfit");
    check(json!({"$ref": "http://127.0.0.1:9/schema.json"}), "1", "kept");
    check(json!({"$ref": "#"}), "1", "kept");
}

#[test]
fn two_answers_agree_where_they_can_be_compared() {
    use Agreement::{Agrees, Disagrees, Incomparable};
    let check = |expected: Expected, first: &str, second: &str, result: Agreement| {
        let asked = Asked { expected, ..Asked::default() };
        assert_eq!(agreement(&asked, &text(first), &text(second)), result, "{first} / {second}");
        assert_eq!(agreement(&asked, &text(second), &text(first)), result, "{second} / {first}");
    };
    let (option, number, open) = (Expected::Option, Expected::Number, Expected::Open);
    check(option, "B", "The answer is (B).", Agrees);
    check(option, "B. neon", "So the correct one is B", Agrees);
    check(option, "**B**", "\\boxed{B}", Agrees);
    check(option, "A", "B", Disagrees);
    check(option, "A gas is light, so I choose C", "Answer: C", Agrees);
    check(option, "I do think so.", "B", Disagrees);
    check(option, "hard to say", "no idea", Incomparable);
    check(number, "She has 7 apples.", "3 + 4 = 7\n#### 7", Agrees);
    check(number, "$1,250.00", "The answer is 1250 dollars, not 1300.", Agrees);
    check(number, "It is 12%", "12.0", Agrees);
    check(number, "-5", "5", Disagrees);
    check(number, "10-5 is 5", "5.", Agrees);
    check(number, "x2 is 4", "4", Agrees);
    check(number, "none", "7", Disagrees);
    check(open, "The Danube.", "danube", Agrees);
    check(open, "[]", "[1]", Disagrees);
    check(open, "[]", " [] ", Agrees);
    check(open, "Paris", "London", Disagrees);
    check(open, &"long ".repeat(40), "Paris", Incomparable);
}

#[test]
fn two_calls_or_two_values_agree_by_what_they_mean() {
    let agree = |first: &str, second: &str| {
        let json = Asked { format: AnswerFormat::Json, ..Asked::default() };
        let calls = |arguments| [ToolCall { name: "weather", arguments }];
        let (first_call, second_call) = (calls(first), calls(second));
        let answer = |calls| AnswerText { text: "", tool_calls: calls, finish: Finish::Done };
        let of_calls = agreement(&Asked::default(), &answer(&first_call), &answer(&second_call));
        assert_eq!(of_calls, agreement(&json, &text(first), &text(second)), "{first} {second}");
        of_calls == Agreement::Agrees
    };
    assert!(agree(r#"{"city": "Wien", "days": 1}"#, r#"{"days": 1.0, "city": " Wien "}"#));
    assert!(!agree(r#"{"city": "Wien"}"#, r#"{"city": "Graz"}"#));
    assert!(!agree(r#"{"list": [1, 2]}"#, r#"{"list": [2, 1]}"#));
    assert!(!agree(r#"{"city": "Wien"}"#, r#"{"city"#));
    let calls = [ToolCall { name: "now", arguments: "" }];
    let called = AnswerText { text: "", tool_calls: &calls, finish: Finish::Done };
    let asked = Asked { tools: TOOLS, ..Asked::default() };
    assert_eq!(agreement(&asked, &called, &text("Noon.")), Agreement::Disagrees);
    let both = check_both(&asked, &called, &text("Noon."));
    assert_eq!(both, Check::Escalate(Failure::Disagrees));
    assert_eq!(check_both(&asked, &called, &called), Check::Kept);
    // The form counts before the comparison.
    let both = check_both(&asked, &text(""), &called);
    assert_eq!(both, Check::Escalate(Failure::Empty));
}

#[test]
fn what_is_expected_is_seen_in_the_words() {
    let check = |words: &str, expected: Expected| {
        let inspected = Inspected { last_words: words.into(), ..Inspected::default() };
        assert_eq!(Expected::of(&inspected), expected, "{words}");
    };
    check("Ann has 3 apples and buys 4. How many has she?", Expected::Number);
    check("Which is a gas?\nA. iron\nB. neon\nC. wood", Expected::Option);
    check("Which is a gas?\n(a) iron\n(b) neon", Expected::Option);
    check("Write a poem about the sea", Expected::Open);
    check("Who was born in 1815?", Expected::Open);
}
