use super::*;
use crate::dialect::sse::Splitter;

fn stream(dialect: Dialect, text: &str) -> (Observed, Vec<Role>) {
    let mut observer = Observer::new(dialect);
    let events = Splitter::events(dialect.is_json_lines(), text.as_bytes());
    let roles = events.map(|(_, event)| observer.event(&event)).collect();
    (observer.found, roles)
}

#[test]
fn a_chat_stream_is_whole_at_its_finish() {
    let text = concat!(
        "data: {\"id\":\"c1\",\"model\":\"m\",\"choices\":[{\"delta\":{\"role\":\"assistant\",",
        "\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n",
        "data: [DONE]\n\n",
    );
    let (found, roles) = stream(Dialect::Chat, text);
    assert_eq!(roles, [Role::Other, Role::Content, Role::Other, Role::Usage, Role::Other]);
    assert!(found.is_whole && found.has_content && !found.has_failed);
    assert_eq!((found.usage.input, found.usage.output), (Some(3), Some(1)));
    assert_eq!(found.response_id.as_deref(), Some("c1"));
    assert_eq!(found.finish_reason.as_deref(), Some("stop"));
    let (cut, _) = stream(Dialect::Chat, &text[..text.len() / 2]);
    assert!(!cut.is_whole);
}

#[test]
fn several_answers_are_whole_when_the_last_one_is() {
    let event = |index: u32, finish: &str| {
        format!(
            "data: {{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"x\"}},\
             \"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    let begun = event(0, "null") + &event(1, "null") + &event(0, "\"stop\"");
    assert!(!stream(Dialect::Chat, &begun).0.is_whole);
    assert!(stream(Dialect::Chat, &(begun + &event(1, "\"stop\""))).0.is_whole);
}

#[test]
fn usage_comes_in_odd_places() {
    for event in [
        r#"{"choices":[{"delta":{}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#,
        r#"{"choices":[{}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#,
        r#"{"usage":{"prompt_tokens":3,"completion_tokens":1}}"#,
        r#"{"choices":null,"usage":{"prompt_tokens":3,"completion_tokens":1}}"#,
    ] {
        let (found, roles) = stream(Dialect::Chat, &format!("data: {event}\n\n"));
        assert_eq!(found.usage.input, Some(3), "{event}");
        assert_eq!(roles, [Role::Usage], "{event}");
    }
    let last = r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    let (found, roles) = stream(Dialect::Chat, &format!("data: {}\n\n", last.replace('\n', "")));
    assert_eq!((found.usage.input, roles), (Some(3), vec![Role::Content]));
    let groq = r#"{"choices":[],"x_groq":{"usage":{"prompt_tokens":3,"completion_tokens":1}}}"#;
    assert_eq!(stream(Dialect::Chat, &format!("data: {groq}\n\n")).0.usage.input, Some(3));
}

#[test]
fn anthropics_counts_are_of_all_so_far() {
    let text = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",",
        "\"model\":\"claude\",\"usage\":{\"input_tokens\":10,\"cache_read_input_tokens\":5,",
        "\"output_tokens\":1}}}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",",
        "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",",
        "\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",",
        "\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":34}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );
    let (found, roles) = stream(Dialect::Messages, text);
    assert_eq!(roles[3], Role::Content);
    assert_eq!(roles.iter().filter(|role| **role == Role::Content).count(), 1);
    assert!(found.is_whole);
    assert_eq!(found.usage.input, Some(15));
    assert_eq!(found.usage.output, Some(34), "a later count replaces an earlier one");
    assert_eq!(found.finish_reason.as_deref(), Some("end_turn"));
    let error =
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
    let (found, roles) = stream(Dialect::Messages, error);
    assert!(found.has_failed);
    assert_eq!(roles, [Role::Failure]);
}

#[test]
fn responses_and_ollama_say_when_they_are_whole() {
    let text = concat!(
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":",
        "{\"id\":\"resp_1\",\"error\":null,\"usage\":null}}\n\n",
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",",
        "\"delta\":\"x\"}\n\n",
        "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":",
        "{\"status\":\"completed\",\"usage\":{\"input_tokens\":3,\"output_tokens\":2}}}\n\n",
    );
    let (found, roles) = stream(Dialect::Responses, text);
    assert_eq!(roles, [Role::Other, Role::Content, Role::Other]);
    assert!(found.is_whole);
    assert_eq!((found.usage.input, found.usage.output), (Some(3), Some(2)));
    let failed = "data: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\"}}\n\n";
    assert!(stream(Dialect::Responses, failed).0.has_failed);

    let text = concat!(
        "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"x\"},\"done\":false}\n",
        "{\"model\":\"m\",\"message\":{\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",",
        "\"load_duration\":2000000,\"prompt_eval_count\":7,\"prompt_eval_duration\":3000000,",
        "\"eval_count\":5,\"eval_duration\":4000000}\n",
    );
    let (found, roles) = stream(Dialect::OllamaChat, text);
    assert_eq!(roles, [Role::Content, Role::Other]);
    assert_eq!((found.usage.input, found.usage.output), (Some(7), Some(5)));
    assert_eq!(found.ollama_ms, Some([2, 3, 4]));
}

#[test]
fn a_whole_answer_is_an_answer_or_none() {
    let check = |dialect, body: &str, expected| {
        let mut observer = Observer::new(dialect);
        assert_eq!(observer.whole(body.as_bytes()), expected, "{body}");
        observer.found
    };
    let found = check(
        Dialect::Chat,
        r#"{"id":"1","choices":[{"message":{"content":"x"},"finish_reason":"length"}],
            "usage":{"prompt_tokens":3,"completion_tokens":1},"error":null}"#,
        true,
    );
    assert_eq!(found.finish_reason.as_deref(), Some("length"));
    check(Dialect::Chat, r#"{"error":{"message":"no"}}"#, false);
    check(Dialect::Chat, "<html>busy</html>", false);
    check(Dialect::Messages, r#"{"type":"error","error":{"type":"x"}}"#, false);
    check(Dialect::Responses, r#"{"status":"failed","error":{"code":"x"}}"#, false);
    check(Dialect::Responses, r#"{"status":"completed","error":null,"output":[1]}"#, true);
    check(Dialect::OllamaChat, r#"{"error":"no model"}"#, false);
    let found = check(Dialect::OllamaEmbed, r#"{"embeddings":[[1]],"prompt_eval_count":4}"#, true);
    assert_eq!(found.usage.input, Some(4));
}
