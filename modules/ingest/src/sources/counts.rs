//! Token counts: the counts of a record, converted to the meaning that they have in the event, by
//! the same rules for every source.

use module_sdk::events::{LlmRequestCompleted, UsageSource};

/// The token counts of a record, as its sender counts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    pub(crate) input: Option<u64>,
    pub(crate) cache_read: Option<u64>,
    /// All cache writes together.
    pub(crate) cache_write: Option<u64>,
    pub(crate) cache_write_5m: Option<u64>,
    pub(crate) cache_write_1h: Option<u64>,
    pub(crate) output: Option<u64>,
    pub(crate) reasoning: Option<u64>,
    /// True when this source's input never includes the cache.
    pub(crate) input_excludes_cache: bool,
    /// True when this source's output never includes the reasoning.
    pub(crate) output_excludes_reasoning: bool,
}

impl Told {
    /// Sets the counts of the event: the input with the cache, the output with the reasoning.
    ///
    /// A part that is larger than its whole shows that the whole does not include it.
    pub(crate) fn settle(self, event: &mut LlmRequestCompleted) {
        let (five_minutes, hour) =
            cache_writes(self.cache_write, self.cache_write_5m, self.cache_write_1h);
        let known = |count: Option<u64>| count.unwrap_or(0);
        let (read, written) = (known(self.cache_read), known(five_minutes) + known(hour));
        let reasoning = known(self.reasoning);
        event.input_tokens =
            self.input.map(|told| input(told, read, written, self.input_excludes_cache));
        event.cache_read_tokens = self.cache_read;
        event.cache_write_5m_tokens = five_minutes;
        event.cache_write_1h_tokens = hour;
        event.output_tokens = whole(self.output, reasoning, self.output_excludes_reasoning);
        event.reasoning_tokens = self.reasoning;
        counted(event);
    }
}

/// Returns the input including what was read from and written to the cache. An input that is large
/// enough for what was read, but not for what was written as well, is taken to leave out only the
/// latter: it may leave out both, but no more than is certain is counted.
fn input(told: u64, read: u64, written: u64, excludes: bool) -> u64 {
    if excludes || read > told {
        told + read + written
    } else if read + written > told {
        told + written
    } else {
        told
    }
}

fn whole(told: Option<u64>, part: u64, excludes: bool) -> Option<u64> {
    told.map(|told| if excludes || part > told { told + part } else { told })
}

/// Sets the source of the token counts: none where there are no counts.
pub(crate) fn counted(event: &mut LlmRequestCompleted) {
    let counted = event.input_tokens.is_some() || event.output_tokens.is_some();
    event.usage_source = Some(if counted { UsageSource::Provider } else { UsageSource::None });
}

/// Splits cache writes into those for 5 minutes and those for an hour, which never exceed `total`.
///
/// Writes without a split count as for 5 minutes, the provider's default, and the part for an hour
/// stays unknown. A split that exceeds its total is ignored.
fn cache_writes(
    total: Option<u64>,
    five_minutes: Option<u64>,
    hour: Option<u64>,
) -> (Option<u64>, Option<u64>) {
    let unsplit = (total, total.filter(|total| *total == 0));
    let (Some(total), true) = (total, five_minutes.is_some() || hour.is_some()) else {
        return match (five_minutes, hour) {
            (None, None) => unsplit,
            _ => (Some(five_minutes.unwrap_or(0)), Some(hour.unwrap_or(0))),
        };
    };
    let (short, long) = (five_minutes.unwrap_or(0), hour.unwrap_or(0));
    if short + long <= total {
        (Some(total - long), Some(long))
    } else if long == 0 || short == 0 {
        (Some(short.min(total)), Some(long.min(total)))
    } else {
        unsplit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_writes_are_bounded_by_their_total() {
        type Writes = (Option<u64>, Option<u64>);
        let check = |given: (Option<u64>, Option<u64>, Option<u64>), expected: Writes| {
            assert_eq!(cache_writes(given.0, given.1, given.2), expected, "{given:?}");
        };
        check((None, None, None), (None, None));
        check((Some(0), None, None), (Some(0), Some(0)));
        check((Some(300), None, None), (Some(300), None));
        check((Some(300), Some(100), Some(200)), (Some(100), Some(200)));
        check((Some(300), None, Some(200)), (Some(100), Some(200)));
        check((Some(300), Some(100), None), (Some(300), Some(0)));
        check((None, Some(100), None), (Some(100), Some(0)));
        check((None, None, Some(100)), (Some(0), Some(100)));
        // Both parts repeat the total, or exceed it: the total holds, and nobody knows the split.
        check((Some(300), Some(300), Some(300)), (Some(300), None));
        check((Some(300), Some(200), Some(200)), (Some(300), None));
        check((Some(0), Some(7), Some(9)), (Some(0), Some(0)));
        // One part alone that exceeds the total is all of it.
        check((Some(300), Some(400), None), (Some(300), Some(0)));
        check((Some(300), None, Some(400)), (Some(0), Some(300)));
        check((Some(300), Some(0), Some(400)), (Some(0), Some(300)));
    }

    #[test]
    fn a_part_larger_than_its_whole_is_no_part_of_it() {
        let check = |told: Told, input: Option<u64>, output: Option<u64>| {
            let mut event = LlmRequestCompleted::default();
            told.settle(&mut event);
            assert_eq!((event.input_tokens, event.output_tokens), (input, output), "{told:?}");
            let parts =
                [event.cache_read_tokens, event.cache_write_5m_tokens, event.cache_write_1h_tokens];
            let cached: u64 = parts.into_iter().flatten().sum();
            assert!(event.input_tokens.is_none_or(|input| cached <= input), "{told:?}");
            assert!(
                event
                    .output_tokens
                    .is_none_or(|output| { event.reasoning_tokens.unwrap_or(0) <= output })
            );
        };
        let told = |input, read, write, output, reasoning| Told {
            input: Some(input),
            cache_read: Some(read),
            cache_write: Some(write),
            output: Some(output),
            reasoning: Some(reasoning),
            ..Told::default()
        };
        check(told(1200, 500, 300, 34, 10), Some(1200), Some(34));
        check(told(800, 500, 300, 34, 34), Some(800), Some(34));
        check(told(3, 17_024, 310, 4, 0), Some(17_337), Some(4));
        check(told(400, 500, 0, 24, 30), Some(900), Some(54));
        // It has room for the one that was read, not for the other.
        check(told(1000, 900, 200, 34, 0), Some(1200), Some(34));
        check(told(1000, 1000, 1, 34, 0), Some(1001), Some(34));
        check(told(1000, 0, 1001, 34, 0), Some(2001), Some(34));
        check(told(400, 500, 100, 34, 0), Some(1000), Some(34));
        check(told(0, 500, 300, 0, 10), Some(800), Some(10));
        let never =
            |told| Told { input_excludes_cache: true, output_excludes_reasoning: true, ..told };
        check(never(told(900, 500, 300, 34, 10)), Some(1700), Some(44));
        check(Told { cache_read: Some(5), reasoning: Some(5), ..Told::default() }, None, None);
        let repeated = Told {
            cache_write_5m: Some(46_318),
            cache_write_1h: Some(46_318),
            ..never(told(67, 0, 46_318, 600, 0))
        };
        check(repeated, Some(46_385), Some(600));
        let most = crate::sources::MAX_TOKENS;
        check(never(told(most, most, most, most, most)), Some(3 * most), Some(2 * most));
    }

    #[test]
    fn nobody_counted_what_has_no_counts() {
        let mut event = LlmRequestCompleted::default();
        Told::default().settle(&mut event);
        assert_eq!(event.usage_source, Some(UsageSource::None));
        Told { output: Some(0), ..Told::default() }.settle(&mut event);
        assert_eq!(event.usage_source, Some(UsageSource::Provider));
    }
}
