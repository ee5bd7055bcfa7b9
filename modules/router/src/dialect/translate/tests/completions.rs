//! Completions, which are asked of providers of other dialects.

use serde_json::{Value, json};

use super::{
    super::{AnswerContext, StreamTranslator, TranslateError, collect},
    CONTEXT, Chat, Messages, OllamaChat, PROVIDERS, answer, answers, events, refusal, request,
    stream,
    streams::full,
};
use crate::dialect::Dialect::{self, Completions, Embeddings, Gemini};

#[test]
fn a_prompt_is_what_a_person_says() {
    let body = json!({"model": "m", "prompt": "Once upon", "max_tokens": 9, "temperature": 0.5,
        "stop": "x", "seed": 1, "echo": false, "logprobs": null, "n": 1, "best_of": 1,
        "suffix": ""});
    let said = json!([{"role": "user", "content": "Once upon"}]);
    assert_eq!(
        request(Completions, Chat, &body),
        json!({"model": "upstream", "messages": said, "max_tokens": 9, "temperature": 0.5,
            "seed": 1, "stop": ["x"]})
    );
    let messages = request(Completions, Messages, &json!({"prompt": ["Once upon"]}));
    assert_eq!(messages["messages"], said);
    assert_eq!(messages["max_tokens"], 4_096);
    assert_eq!(request(Completions, OllamaChat, &body)["messages"], said);
    assert_eq!(request(Completions, Gemini, &body)["contents"][0]["parts"][0]["text"], "Once upon");
}

#[test]
fn what_has_no_word_elsewhere_is_refused_by_its_name() {
    for (key, value, word) in [
        ("echo", json!(true), "echo"),
        ("logprobs", json!(0), "logprobs"),
        ("suffix", json!("end"), "suffix"),
        ("best_of", json!(2), "best_of"),
        ("n", json!(2), "(n)"),
        ("prompt", json!(["a", "b"]), "several prompts"),
        ("prompt", json!([1, 2]), "tokens"),
        ("prompt", json!([[1, 2]]), "tokens"),
        ("prompt", json!(""), "prompt must be"),
        ("prompt", json!([]), "prompt must be"),
        ("prompt", Value::Null, "prompt must be"),
    ] {
        let mut body = json!({"prompt": "a"});
        body[key] = value;
        for to in PROVIDERS {
            let words = refusal(Completions, to, &body).to_string();
            assert!(words.contains(word), "{body}: {words}");
        }
    }
    let words = refusal(Embeddings, Messages, &json!({"input": "a"})).to_string();
    assert_eq!(words, "embeddings cannot be asked of a provider of this API");
}

#[test]
fn an_answer_is_its_text() {
    for from in PROVIDERS {
        let body = answer(from, Completions, &answers::full(from));
        let id = if from == OllamaChat { "cmpl-r1" } else { "id1" };
        assert_eq!(body["id"], id, "{from:?}");
        assert_eq!(body["object"], "text_completion");
        assert_eq!(body["model"], "asked");
        assert_eq!(
            body["choices"],
            json!([{"text": "Hi", "index": 0, "logprobs": null, "finish_reason": "stop"}]),
            "{from:?}"
        );
        assert_eq!(body["usage"]["prompt_tokens"], 120);
    }
    let cut = json!({"choices": [{"message": {"content": "H"}, "finish_reason": "length"}]});
    assert_eq!(answer(Chat, Completions, &cut)["choices"][0]["finish_reason"], "length");
}

#[test]
fn a_stream_is_chunks_of_text() {
    for from in PROVIDERS {
        let out = stream(from, Completions, &full(from));
        let texts: String =
            out.iter().filter_map(|(_, data)| data["choices"][0]["text"].as_str()).collect();
        assert_eq!(texts, "Hi", "{from:?}");
        let chunks = &out[..out.len() - 2];
        assert!(chunks.iter().all(|(_, data)| data["object"] == "text_completion"), "{out:?}");
        assert_eq!(chunks.last().expect("one").1["choices"][0]["finish_reason"], "stop");
        assert_eq!(out[out.len() - 2].1["usage"]["completion_tokens"], 34, "{from:?}");
        assert_eq!(out.last().expect("an end").1, "[DONE]");
    }
    // Who did not ask for the usage does not get it.
    let context = AnswerContext { include_usage: false, ..CONTEXT };
    let mut translator = StreamTranslator::new(Chat, Completions, &context).expect("a pair");
    let mut out = Vec::new();
    for data in full(Chat) {
        super::push(&mut translator, &data, &mut out).expect("translated");
    }
    translator.finish(&mut out);
    let out = events(&out, Completions);
    assert!(out.iter().all(|(_, data)| data.get("usage").is_none()), "{out:?}");
    // Cut before its end.
    let out = stream(Chat, Completions, &full(Chat)[..4]);
    assert_eq!(out.last().expect("an error").1["error"]["type"], "upstream_error");
}

#[test]
fn nobody_is_asked_for_completions_by_translation() {
    let error = refusal(Chat, Completions, &json!({"messages": []}));
    assert!(matches!(error, TranslateError::NoPair { .. }), "{error}");
}

/// Returns the whole answer that is put together from chunks with these choices.
fn collected(from: Dialect, to: Dialect, choices: &[Value]) -> Value {
    let chunk = |choice: &Value| format!("data: {}\n\n", json!({"choices": [choice]}));
    let stream = choices.iter().map(chunk).collect::<String>() + "data: [DONE]\n\n";
    let body = collect(from, to, stream.as_bytes(), &CONTEXT).expect("an answer");
    serde_json::from_slice(&body).expect("it is JSON")
}

#[test]
fn probabilities_of_tokens_stay_where_the_form_stays() {
    let piece = |text: &str, offset: u32| {
        let logprobs = json!({"tokens": [text], "token_logprobs": [-0.5], "top_logprobs": null,
            "text_offset": [offset]});
        json!({"index": 0, "text": text, "logprobs": logprobs, "finish_reason": null})
    };
    let end = json!({"index": 0, "text": "", "logprobs": null, "finish_reason": "stop"});
    let body = collected(Completions, Completions, &[piece("Once", 0), piece(" upon", 4), end]);
    let expected = json!({"tokens": ["Once", " upon"], "token_logprobs": [-0.5, -0.5],
        "top_logprobs": null, "text_offset": [0, 4]});
    assert_eq!(body["choices"][0]["text"], "Once upon");
    assert_eq!(body["choices"][0]["logprobs"], expected);

    let piece = |text: &str| {
        let logprobs = json!({"content": [{"token": text, "logprob": -0.5}], "refusal": null});
        json!({"index": 0, "delta": {"content": text}, "logprobs": logprobs})
    };
    let pieces = [piece("Hi"), piece(" you"), json!({"index": 0, "finish_reason": "stop"})];
    let expected = json!({"content": [{"token": "Hi", "logprob": -0.5},
        {"token": " you", "logprob": -0.5}], "refusal": null});
    assert_eq!(collected(Chat, Chat, &pieces)["choices"][0]["logprobs"], expected);
    // In another form nobody could read them.
    assert_eq!(collected(Chat, Completions, &pieces)["choices"][0]["logprobs"], Value::Null);
    assert!(collected(Chat, Messages, &pieces).get("logprobs").is_none());
}
