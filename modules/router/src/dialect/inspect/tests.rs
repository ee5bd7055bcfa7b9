use super::*;

fn read(dialect: Dialect, body: &str) -> Inspected<'_> {
    inspect(dialect, body.as_bytes()).expect("it is a request")
}

#[test]
fn a_chat_request_is_read() {
    let body = r#"{"messages": [{"role": "system", "content": "be brief"},
        {"role": "user", "content": "first"}, {"role": "assistant", "content": "x"},
        {"role": "user", "content": [{"type": "text", "text": "see \"this\""},
        {"type": "image_url", "image_url": {"url": "data:"}}]}],
        "model": "gpt-5", "stream": true, "stream_options": {"include_usage": true},
        "tools": [{}, {}], "tool_choice": "required", "temperature": 0, "n": 2,
        "max_completion_tokens": 100, "response_format": {"type": "json_schema"}}"#;
    let found = read(Dialect::Chat, body);
    assert_eq!(found.model, "gpt-5");
    assert_eq!(found.places.model.map(|at| &body[at]), Some("\"gpt-5\""));
    assert_eq!(found.last_words, "see \"this\"");
    assert_eq!(found.system, "be brief");
    assert!(found.stream && found.includes_usage && found.requires_tool && found.has_images);
    assert_eq!((found.messages, found.tools, found.choices), (4, 2, 2));
    assert_eq!((found.max_tokens, found.temperature), (Some(100), Some(0.0)));
    assert_eq!(found.answer_format, AnswerFormat::Schema);
    assert!(!found.continues_tool);
}

#[test]
fn the_last_words_are_a_persons_in_every_dialect() {
    let check = |dialect, body: &str, words: &str, continues| {
        let found = read(dialect, body);
        assert_eq!((&*found.last_words, found.continues_tool), (words, continues), "{body}");
    };
    check(
        Dialect::Messages,
        r#"{"messages": [{"role": "user", "content": [
            {"type": "text", "text": "<system-reminder>be good</system-reminder>"},
            {"type": "text", "text": "mend it"},
            {"type": "text", "text": "<system-reminder>todo</system-reminder>\n"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "1"}]},
            {"role": "user", "content": [{"type": "tool_result", "content": "ok"}]}]}"#,
        "mend it",
        true,
    );
    check(
        Dialect::Responses,
        r#"{"input": [{"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "<environment_context>\n/x</environment_context>"}]},
            {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
            {"type": "function_call", "name": "f"},
            {"type": "function_call_output", "output": "1"}]}"#,
        "hello",
        true,
    );
    check(Dialect::Responses, r#"{"input": "hello"}"#, "hello", false);
    check(Dialect::Completions, r#"{"prompt": "once upon"}"#, "once upon", false);
    check(Dialect::OllamaGenerate, r#"{"prompt": "why?", "images": []}"#, "why?", false);
    check(
        Dialect::Gemini,
        r#"{"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}"#,
        "hi",
        false,
    );
    check(
        Dialect::Chat,
        concat!(
            r#"{"messages": [{"role": "user", "content": "<context>a file</context>\n"#,
            r#"<userRequest>rename <b>x</b></userRequest>"}]}"#,
        ),
        "rename <b>x</b>",
        false,
    );
    check(Dialect::Chat, r#"{"messages": [{"role": "user", "content": null}, 7]}"#, "", false);
}

#[test]
fn media_are_seen_and_words_about_them_are_none() {
    let check = |dialect, body: &str, expected| {
        assert_eq!(read(dialect, body).has_images, expected, "{body}");
    };
    let about = r#"{"messages": [{"role": "user", "content": "{\"type\": \"image\"}, images"}]}"#;
    check(Dialect::Chat, about, false);
    let image = r#"{"messages": [{"role": "user", "content": [{"type" : "image",
        "source": {}}]}]}"#;
    check(Dialect::Messages, image, true);
    let ollama = r#"{"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}"#;
    check(Dialect::OllamaChat, ollama, true);
    let none = r#"{"messages": [{"role": "user", "content": "x", "images": []}]}"#;
    check(Dialect::OllamaChat, none, false);
    check(Dialect::Gemini, r#"{"contents": [{"parts": [{"inlineData": {}}]}]}"#, true);
}

#[test]
fn odd_numbers_are_for_the_provider_to_judge() {
    let check = |number: &str, tokens, temperature, choices| {
        let body = format!(r#"{{"max_tokens": {number}, "temperature": {number}, "n": {number}}}"#);
        let found = read(Dialect::Chat, &body);
        let got = (found.max_tokens, found.temperature, found.choices);
        assert_eq!(got, (tokens, temperature, choices), "{number}");
    };
    check("3", Some(3), Some(3.0), 3);
    check("3.0", Some(3), Some(3.0), 3);
    check("null", None, None, 1);
    check("0.5", None, Some(0.5), 1);
    check("-1", None, Some(-1.0), 1);
    check("1e300", None, Some(1e300), 1);
    // An answer to this is none that comes again.
    check("\"0\"", None, Some(1.0), 1);
}

#[test]
fn tools_that_come_in_the_conversation_count() {
    let body = r#"{"input": [{"type": "additional_tools", "tools": [{}, {}]},
        {"role": "user", "content": "x"}]}"#;
    assert_eq!(read(Dialect::Responses, body).tools, 2);
}

#[test]
fn a_bad_body_is_refused_without_its_text() {
    let check = |body: &[u8], words: &str| {
        let error = inspect(Dialect::Chat, body).expect_err("it is bad").to_string();
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("canary"), "{error}");
    };
    check(b"{\"model\": \"canary\", \"mess", "ends too early");
    check(b"{\"model\": \"a\", \"model\": \"canary\"}", "duplicate field `model`");
    check(b"{\"messages\": \"canary\"}", "a list of at most 20000 items is expected there");
    check(b"{\"model\": \"\xff\"}", "not UTF-8 (byte 11)");
    check(b"", "the body is empty");
    check(b" \n", "the body is empty");
    check(b"canary", "not whole JSON");
    check("\u{feff}{}".as_bytes(), "byte order mark");
    check(b"\"canary\"", "an object is expected");
    check(b"{\"model\": 5}", "`model` is a text");
    check("[".repeat(100_000).as_bytes(), "an object is expected");
    let deep = format!("{{\"metadata\": {}", "[".repeat(100_000));
    check(deep.as_bytes(), "ends too early");
}

#[test]
fn a_key_in_another_spelling_is_refused() {
    let check = |body: &str, words: &str| {
        let error = inspect(Dialect::OllamaChat, body.as_bytes()).expect_err("it is refused");
        assert!(error.to_string().contains(words), "{error}");
    };
    // Some take the last one, however it is spelt.
    check(r#"{"model": "a", "Model": "b"}"#, "a key is written `model`");
    check(r#"{"MODEL": "b"}"#, "a key is written `model`");
    check(r#"{"model": "a", "\u004dodel": "b"}"#, "a key is written `model`");
    check(r#"{"model": "a", "mod\u0065l": "b"}"#, "duplicate field `model`");
    check(r#"{"Messages": []}"#, "a key is written `messages`");
    check("{\"\u{17f}tream\": true}", "a key is written `stream`");
    let fine = r#"{"model": "a", "generation_config": {}, "Models": 1, "x": {"Model": "b"}}"#;
    assert_eq!(read(Dialect::Gemini, fine).names_models, Some("models"));
}

#[test]
fn what_may_choose_another_model_is_seen() {
    let check = |body: &str, expected: Option<&str>| {
        assert_eq!(read(Dialect::Chat, body).names_models, expected, "{body}");
    };
    check(r#"{"model": "a", "messages": [{"role": "user", "content": "models"}]}"#, None);
    check(r#"{"model": "a", "models": ["b"]}"#, Some("models"));
    check(r#"{"m\u006fdels": ["b"]}"#, Some("models"));
    check(r#"{"route": "fallback", "model": "a"}"#, Some("route"));
    check(r#"{"Fallbacks": ["b"]}"#, Some("fallbacks"));
    check(r#"{"tools": [{"type": "image_generation", "model": "b"}]}"#, Some("tools"));
    check(r#"{"tools": [{"name": "x", "M\u006fdel": "b"}]}"#, Some("tools"));
    let schema = r#"{"tools": [{"name": "x", "input_schema": {"properties": {"model": {}}}}]}"#;
    check(schema, None);
}

#[test]
fn a_tool_may_choose_another_model_wherever_it_is_offered() {
    let check = |body: &str, expected: Option<&str>| {
        assert_eq!(read(Dialect::Responses, body).names_models, expected, "{body}");
    };
    let named = r#"{"type": "image_generation", "model": "b"}"#;
    let harmless = r#"{"type": "function", "parameters": {"properties": {"model": {}}}}"#;
    for (tool, expected) in [(named, Some("tools")), (harmless, None)] {
        let namespace = format!(r#"{{"type": "namespace", "tools": [{harmless}, {tool}]}}"#);
        check(&format!(r#"{{"tools": [{namespace}]}}"#), expected);
        check(&format!(r#"{{"input": [{namespace}]}}"#), expected);
        for tool in [tool, namespace.as_str()] {
            // An item is taken by its list, whatever it says that it is.
            for item in [
                format!(r#"{{"type": "additional_tools", "tools": [{tool}]}}"#),
                format!(r#"{{"type": "additional\u005ftools", "tools" : [{tool}]}}"#),
                format!(r#"{{"t\u006fols": [{tool}], "type": "additional_tools"}}"#),
                format!(r#"{{"type": "additional_tools", "Tools": [{tool}]}}"#),
                format!(r#"{{"tools": [], "tools": [{tool}], "tools": 7}}"#),
            ] {
                check(&format!(r#"{{"input": [{{"role": "user"}}, 7, {item}]}}"#), expected);
                check(&format!(r#"{{"messages": [], "input": [{item}]}}"#), expected);
                // However many stand before it.
                check(&format!(r#"{{"input": [{}{item}]}}"#, "0,".repeat(20_000)), expected);
            }
        }
    }
    check(r#"{"tools": [{"type": "namespace", "model": "b", "tools": []}]}"#, Some("tools"));
    // Some read such a key.
    check(r#"{"tools": [{"\ud800": 1, "model": "b"}]}"#, Some("tools"));
    check(r#"{"input": [{"\ud800": 1, "tools": [{"model": "b"}]}]}"#, Some("tools"));
    let words = r#"{"output": "{\"tools\": [{\"model\": \"b\"}]} \u00e9"}"#;
    check(&format!(r#"{{"input": [{words}, "tools", {{"tools": ""}}]}}"#), None);
    check(r#"{"input": "{\"tools\": [{\"model\": \"\u0062\"}]}"}"#, None);
    check(r#"{"tools": ["model"]}"#, None);
}
