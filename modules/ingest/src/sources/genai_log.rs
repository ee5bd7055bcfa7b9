//! The log record `gen_ai.client.inference.operation.details` of OpenTelemetry's GenAI
//! conventions: one model call with the attributes of its span, and in that span's context.

use super::{
    Context, Log, Outcome,
    genai_span::{is_request, read},
    shape::from_log,
};

/// Maps a log record.
pub(crate) fn map_log(log: &Log<'_>, context: &Context<'_>) -> Outcome {
    if log.name != "gen_ai.client.inference.operation.details" {
        // Messages and choices: text of the conversation.
        return Outcome::Ignored("not a model request");
    }
    if let Err(outcome) = is_request(log.attributes, "") {
        return outcome;
    }
    let mut report = from_log(log, context);
    match read(&mut report, log.attributes, false, context) {
        Ok(()) => Outcome::Request(Box::new(report)),
        Err(refusal) => Outcome::Refused(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::{build::*, map_log};

    #[test]
    fn details_are_a_request_and_messages_are_none() {
        let details = [
            attr("event.name", text("gen_ai.client.inference.operation.details")),
            attr("gen_ai.operation.name", text("chat")),
            attr("gen_ai.provider.name", text("openai")),
            attr("gen_ai.request.model", text("gpt-5")),
            attr("gen_ai.response.id", text("resp_1")),
            attr("gen_ai.usage.input_tokens", int(12)),
            attr("gen_ai.usage.output_tokens", int(3)),
        ];
        with_context("program", "some.scope", |context| {
            let event = request_of(map_log(&log(NOW_NS, &details), context).2).event;
            assert_eq!(event.input_tokens, Some(12));
            assert_eq!(event.response_id.as_deref(), Some("resp_1"));
            let message = [attr("event.name", text("gen_ai.user.message"))];
            let outcome = map_log(&log(NOW_NS, &message), context).2;
            assert!(matches!(outcome, Outcome::Ignored(_)));
        });
    }
}
