//! Reasoning that another provider wrote, in a request that passes through untouched otherwise.

use super::{TranslateError, ids::OWN, json::Json, messages::FOREIGN_SIGNATURE};
use crate::dialect::Dialect;

/// Takes out of a request the reasoning that was translated from another provider: Anthropic
/// refuses a signature that it did not write, OpenAI an item that it does not know. Returns `None`
/// where there is none, which is nearly always, and found out without reading the body as JSON.
pub(crate) fn without_foreign_reasoning(
    dialect: Dialect,
    body: &[u8],
) -> Result<Option<Vec<u8>>, TranslateError> {
    let mark = match dialect {
        Dialect::Messages => format!("\"{FOREIGN_SIGNATURE}\""),
        Dialect::Responses => format!("_{OWN}_"),
        _ => return Ok(None),
    };
    if memchr::memmem::find(body, mark.as_bytes()).is_none() {
        return Ok(None);
    }
    let mut tree = Json::parse(body)?;
    if dialect == Dialect::Responses {
        strip_items(&mut tree);
    } else {
        strip_blocks(&mut tree);
    }
    Ok(Some(tree.to_bytes()))
}

/// Takes out blocks of reasoning with the mark, and turns that had nothing else.
fn strip_blocks(tree: &mut Json<'_>) {
    let Some(Json::List(messages)) = tree.get_mut("messages") else { return };
    messages.retain_mut(|message| {
        let Some(Json::List(blocks)) = message.get_mut("content") else { return true };
        let before = blocks.len();
        blocks.retain(|block| {
            block.get("type").text() != Some("thinking")
                || block.get("signature").text() != Some(FOREIGN_SIGNATURE)
        });
        !blocks.is_empty() || before == 0
    });
}

/// Takes out items of reasoning that were made here, and the made-up ids of the others.
fn strip_items(tree: &mut Json<'_>) {
    let Some(Json::List(items)) = tree.get_mut("input") else { return };
    let mark = format!("_{OWN}_");
    items.retain_mut(|item| {
        if !item.get("id").text().is_some_and(|id| id.contains(&mark)) {
            return true;
        }
        let is_reasoning = item.get("type").text() == Some("reasoning");
        if let Json::Object(object) = item {
            object.remove("id");
        }
        !is_reasoning
    });
}
