//! Token counts: those of a file, converted to the meaning that they have in the event, by the same
//! rules for every tool.

use module_sdk::events::{LlmRequestCompleted, UsageSource};

use super::json::Count;

/// The token counts of a record, as its tool counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    pub(super) input: Count,
    pub(super) cache_read: Count,
    /// All cache writes together.
    pub(super) cache_write: Count,
    pub(super) cache_write_5m: Count,
    pub(super) cache_write_1h: Count,
    pub(super) output: Count,
    pub(super) reasoning: Count,
    /// `true` where the tool's input never includes the cache.
    pub(super) input_excludes_cache: bool,
    /// `true` where the tool's output never includes the reasoning.
    pub(super) output_excludes_reasoning: bool,
}

impl Told {
    /// Returns whether nothing was counted.
    pub(super) fn is_nothing(&self) -> bool {
        let counts = [self.input, self.cache_read, self.cache_write, self.output, self.reasoning];
        counts.iter().all(|count| count.or_zero() == 0)
            && self.cache_write_5m.or_zero() == 0
            && self.cache_write_1h.or_zero() == 0
    }

    /// Sets the counts of the request: the input with the cache, the output with the reasoning. A
    /// part that is larger than its whole shows that the whole does not include it.
    pub(super) fn settle(self, request: &mut LlmRequestCompleted) {
        let (short, long) = self.cache_writes();
        let (read, written) =
            (self.cache_read.or_zero(), short.unwrap_or(0).saturating_add(long.unwrap_or(0)));
        let reasoning = self.reasoning.or_zero();
        request.input_tokens = self.input.0.map(|told| {
            let cached = read.saturating_add(written);
            let excludes = self.input_excludes_cache || read > told;
            if excludes {
                told.saturating_add(cached)
            } else if cached > told {
                told.saturating_add(written)
            } else {
                told
            }
        });
        request.output_tokens = self.output.0.map(|told| {
            let excludes = self.output_excludes_reasoning || reasoning > told;
            if excludes { told.saturating_add(reasoning) } else { told }
        });
        request.cache_read_tokens = self.cache_read.0;
        request.cache_write_5m_tokens = short;
        request.cache_write_1h_tokens = long;
        request.reasoning_tokens = self.reasoning.0;
        let is_counted = request.input_tokens.is_some() || request.output_tokens.is_some();
        request.usage_source =
            Some(if is_counted { UsageSource::Provider } else { UsageSource::None });
    }

    /// Splits the cache writes into those for 5 minutes and those for an hour, which never exceed
    /// the total. Writes without a split count as for 5 minutes, the provider's default, and the
    /// part for an hour stays unknown.
    fn cache_writes(&self) -> (Option<u64>, Option<u64>) {
        let (short, long) = (self.cache_write_5m.0, self.cache_write_1h.0);
        let unsplit = (self.cache_write.0, self.cache_write.0.filter(|total| *total == 0));
        let Some(total) = self.cache_write.0 else {
            return match (short, long) {
                (None, None) => unsplit,
                _ => (Some(short.unwrap_or(0)), Some(long.unwrap_or(0))),
            };
        };
        if short.is_none() && long.is_none() {
            return unsplit;
        }
        let (short, long) = (short.unwrap_or(0), long.unwrap_or(0));
        if short.saturating_add(long) <= total {
            (Some(total - long), Some(long))
        } else if short == 0 || long == 0 {
            (Some(short.min(total)), Some(long.min(total)))
        } else {
            unsplit
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(told: Told) -> LlmRequestCompleted {
        let mut request = LlmRequestCompleted::default();
        told.settle(&mut request);
        request
    }

    fn count(count: u64) -> Count {
        Count(Some(count))
    }

    #[test]
    fn wholes_include_their_parts() {
        let claude = settled(Told {
            input: count(400),
            cache_read: count(500),
            cache_write: count(300),
            cache_write_5m: count(100),
            cache_write_1h: count(200),
            output: count(34),
            input_excludes_cache: true,
            ..Told::default()
        });
        assert_eq!((claude.input_tokens, claude.output_tokens), (Some(1200), Some(34)));
        let writes = (claude.cache_write_5m_tokens, claude.cache_write_1h_tokens);
        assert_eq!(writes, (Some(100), Some(200)));
        let gemini = settled(Told {
            input: count(1200),
            cache_read: count(800),
            output: count(24),
            reasoning: count(10),
            output_excludes_reasoning: true,
            ..Told::default()
        });
        assert_eq!((gemini.input_tokens, gemini.output_tokens), (Some(1200), Some(34)));
        assert_eq!(settled(Told::default()).usage_source, Some(UsageSource::None));
    }

    #[test]
    fn cache_writes_never_exceed_their_total() {
        let check = |total, short, long, expected: (Option<u64>, Option<u64>)| {
            let (cache_write, cache_write_5m, cache_write_1h) =
                (Count(total), Count(short), Count(long));
            let told = Told { cache_write, cache_write_5m, cache_write_1h, ..Told::default() };
            assert_eq!(told.cache_writes(), expected);
        };
        check(None, None, None, (None, None));
        check(Some(0), None, None, (Some(0), Some(0)));
        check(Some(300), None, None, (Some(300), None));
        check(Some(300), None, Some(200), (Some(100), Some(200)));
        check(Some(300), Some(200), Some(200), (Some(300), None));
        check(Some(300), Some(0), Some(400), (Some(0), Some(300)));
        check(None, Some(100), None, (Some(100), Some(0)));
    }
}
