//! Gate of answers that programs read: calls of tools, and JSON.

use serde_json::{Value, json};

use super::{Fault, HeldOut, Limits, Measured, Session, Strategy, check::json_of, session::Who};
use crate::deploy::Call;

/// Held-out answers that call a tool or are JSON: the version's are valid as often as the base's.
pub(super) struct Tools;

/// A form that an answer has to have.
enum Form {
    /// A call of one of these tools.
    Call(Value),
    /// JSON: an object with these keys, or anything else.
    Json(Option<Vec<String>>),
}

impl Strategy for Tools {
    fn name(&self) -> &'static str {
        "tools"
    }

    fn limit(&self, _: &Limits) -> Option<f64> {
        None
    }

    fn measure(&self, session: &mut Session<'_>) -> Result<Measured, Fault> {
        let held_out = session.held_out();
        let most_questions = session.limits().questions as usize;
        let chosen: Vec<(&HeldOut, Form)> =
            held_out.iter().filter_map(|it| Some((it, form(it)?))).take(most_questions).collect();
        if chosen.is_empty() {
            let reason = "no held-out answer calls a tool or is JSON";
            return Err(Fault::NotApplicable(reason.to_owned()));
        }
        let most = session.target()?.most;
        session.expect(2 * chosen.len());
        let (mut valid, mut broken) = ([0_usize; 2], Vec::new());
        for (number, (example, form)) in (1..).zip(&chosen) {
            for (at, who) in [Who::Base, Who::Version].into_iter().enumerate() {
                let is_valid = match form {
                    Form::Call(tools) => {
                        is_call(&session.called(who, example, tools)?.calls, tools)
                    }
                    Form::Json(keys) => {
                        let answer = session.answer(who, &example.messages, most)?;
                        is_json(&answer.text, keys.as_deref())
                    }
                };
                valid[at] += usize::from(is_valid);
                if !is_valid && who == Who::Version {
                    broken.push(number);
                }
            }
        }
        let share = |valid: usize| valid as f64 / chosen.len() as f64;
        let calls = chosen.iter().filter(|(_, form)| matches!(form, Form::Call(_))).count();
        let evidence = json!({
            "questions": chosen.len(), "calls": calls, "json": chosen.len() - calls,
            "base": valid[0], "version": valid[1], "not_valid": broken,
        });
        Ok(Measured::at_least(share(valid[1]), share(valid[0]), evidence))
    }
}

/// Returns the form that the answer to an example has, if programs read it.
fn form(example: &HeldOut) -> Option<Form> {
    let answer = &example.answer;
    if answer.tool_calls.is_some() {
        return example.tools.clone().map(Form::Call);
    }
    match json_of(&answer.content)? {
        Value::Object(object) => Some(Form::Json(Some(object.keys().cloned().collect()))),
        Value::Array(_) => Some(Form::Json(None)),
        // A number alone is a text that happens to be JSON.
        _ => None,
    }
}

fn is_json(answer: &str, keys: Option<&[String]>) -> bool {
    match (json_of(answer), keys) {
        (Some(Value::Object(object)), Some(keys)) => {
            keys.iter().all(|key| object.contains_key(key))
        }
        (Some(Value::Array(_)), None) => true,
        _ => false,
    }
}

/// Returns whether there are calls, each of a tool that there is, with the arguments it needs.
fn is_call(calls: &[Call], tools: &Value) -> bool {
    let tools = tools.as_array().map(Vec::as_slice).unwrap_or_default();
    let is_valid = |call: &Call| {
        let mut functions = tools.iter().map(|tool| &tool["function"]);
        let function = functions.find(|it| it["name"].as_str() == Some(&call.name));
        let (Some(function), Some(Value::Object(given))) = (function, &call.arguments) else {
            return false;
        };
        let needed = function["parameters"]["required"].as_array();
        needed.into_iter().flatten().filter_map(Value::as_str).all(|name| given.contains_key(name))
    };
    !calls.is_empty() && calls.iter().all(is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_of_a_tool_with_what_it_needs() {
        let tools = json!([{"type": "function", "function": {
            "name": "price", "parameters": {"type": "object", "required": ["order"]},
        }}]);
        let check = |calls: &[(&str, Option<Value>)], expected: bool| {
            let calls: Vec<Call> = calls
                .iter()
                .map(|(name, arguments)| Call {
                    name: (*name).to_owned(),
                    arguments: arguments.clone(),
                })
                .collect();
            assert_eq!(is_call(&calls, &tools), expected, "{calls:?}");
        };
        let good = || ("price", Some(json!({"order": 7, "more": 1})));
        check(&[good()], true);
        check(&[good(), ("prise", Some(json!({"order": 7})))], false);
        check(&[("price", Some(json!({"number": 7})))], false);
        check(&[("price", Some(json!([7])))], false);
        check(&[("price", None)], false);
        check(&[], false);
        assert!(!is_call(&[Call { name: "price".to_owned(), arguments: None }], &Value::Null));
    }

    #[test]
    fn json_keeps_its_keys() {
        let form = |answer: &str, calls: bool, tools: bool| {
            let mut line = json!({"messages": [
                {"role": "user", "content": "a"}, {"role": "assistant", "content": answer},
            ]});
            if calls {
                line["messages"][1]["tool_calls"] = json!([]);
            }
            if tools {
                line["tools"] = json!([]);
            }
            form(&HeldOut::read(&line.to_string()).expect("it is an example"))
        };
        let Some(Form::Json(Some(keys))) = form("{\"b\": 1}", false, false) else {
            panic!("it is an object");
        };
        assert_eq!(keys, ["b"]);
        assert!(matches!(form("[1]", false, false), Some(Form::Json(None))));
        assert!(matches!(form("", true, true), Some(Form::Call(_))));
        for (answer, calls, tools) in
            [("7", false, true), ("plain", false, true), ("", true, false)]
        {
            assert!(form(answer, calls, tools).is_none(), "{answer}");
        }
        let keys = ["b".to_owned()];
        for (answer, keys, expected) in [
            ("{\"b\": 2, \"c\": 3}", Some(&keys[..]), true),
            ("{\"c\": 3}", Some(&keys[..]), false),
            ("[2]", None, true),
            ("[2]", Some(&keys[..]), false),
            ("{\"b\": 2", Some(&keys[..]), false),
        ] {
            assert_eq!(is_json(answer, keys), expected, "{answer}");
        }
    }
}
