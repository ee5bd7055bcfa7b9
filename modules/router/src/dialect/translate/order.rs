//! Results of tools stand right after the turn that called them: every API wants it so, and not
//! every client does it.

use std::{borrow::Cow, collections::HashMap};

use super::ir::{Block, Request, Role, Turn};

/// A turn with the results of the calls in it.
struct Slot<'a> {
    turn: Turn<'a>,
    results: Vec<Block<'a>>,
}

/// Moves each result behind its call, and joins turns of one side that then follow each other.
/// Results of calls that are not there stay where they are.
pub(super) fn settle(request: &mut Request<'_>) {
    let turns = std::mem::take(&mut request.turns);
    let mut slots: Vec<Slot<'_>> = Vec::with_capacity(turns.len());
    // Ids may come again in later turns: the latest call that has no result yet is meant.
    let mut open: HashMap<Cow<'_, str>, usize> = HashMap::new();
    for Turn { role, blocks } in turns {
        let mut kept = Vec::with_capacity(blocks.len());
        for block in blocks {
            match &block {
                Block::ToolUse { id, .. } => {
                    open.insert(id.clone(), slots.len());
                }
                Block::ToolResult { id, .. } => {
                    if let Some(slot) = open.remove(id).and_then(|at| slots.get_mut(at)) {
                        slot.results.push(block);
                        continue;
                    }
                }
                _ => {}
            }
            kept.push(block);
        }
        slots.push(Slot { turn: Turn { role, blocks: kept }, results: Vec::new() });
    }
    for Slot { turn, results } in slots {
        request.push(turn.role, turn.blocks);
        request.push(Role::User, results);
    }
    for turn in &mut request.turns {
        if turn.role == Role::User {
            // Stable: false comes before true.
            turn.blocks.sort_by_key(|block| !matches!(block, Block::ToolResult { .. }));
        }
    }
}
