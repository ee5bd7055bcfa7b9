//! The withdrawal of requests that turned out not to be requests.

use super::{Store, StoreError, write::Withdrawal};

/// The result of withdrawals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// Number of requests that were withdrawn.
    pub taken_off: u32,
    /// Number of requests that retention had deleted before: the sums still count them.
    pub too_late: u32,
}

impl Store {
    /// Withdraws requests by their dedupe keys, in one transaction: rows, sums and sessions are as
    /// if the requests had never been. A key that is not known yet will not count either. The
    /// contribution of a request is known from its row only, so a request that retention has
    /// deleted stays in the sums. `now_ms` is the time, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// When the database cannot be written; nothing is withdrawn then.
    pub fn withdraw(&mut self, keys: &[String], now_ms: i64) -> Result<Withdrawn, StoreError> {
        self.in_batch(now_ms, |mut batch| {
            let mut withdrawn = Withdrawn::default();
            for key in keys {
                match batch.withdraw(key)? {
                    Withdrawal::Done => withdrawn.taken_off += 1,
                    Withdrawal::TooLate => withdrawn.too_late += 1,
                    Withdrawal::Nothing => {}
                }
            }
            batch.finish()?;
            Ok(withdrawn)
        })
    }
}

#[cfg(test)]
mod tests {
    use module_sdk::events::{LlmRequestCompleted, RequestSource};
    use uuid::Uuid;

    use crate::{
        sanitize::Report,
        store::{Options, Store, Withdrawn},
    };

    const NOW: i64 = 1_795_000_000_000;

    fn report(key: &str, model: &str, after_ms: i64) -> Report {
        let request = LlmRequestCompleted {
            dedupe_key: key.to_owned(),
            started_at: NOW + after_ms - 10,
            ended_at: NOW + after_ms,
            session_id: Some("session".to_owned()),
            request_model: Some(model.to_owned()),
            input_tokens: Some(100),
            ..Default::default()
        };
        Report::new(Uuid::now_v7(), request, NOW)
    }

    const DONE: Withdrawn = Withdrawn { taken_off: 1, too_late: 0 };
    const NOTHING: Withdrawn = Withdrawn { taken_off: 0, too_late: 0 };

    fn store(directory: &tempfile::TempDir) -> Store {
        Store::open(&directory.path().join("u.db"), Options::default()).expect("it opens")
    }

    fn withdraw(store: &mut Store, key: &str) -> Withdrawn {
        store.withdraw(&[key.to_owned()], NOW).expect("it is written")
    }

    /// Returns the key, start, end and last model of every session, with times relative to [`NOW`].
    fn sessions(store: &Store) -> Vec<(String, i64, i64, Option<String>)> {
        let sql = "SELECT key, started_at, ended_at, n.text FROM session s \
                   LEFT JOIN name n ON n.id = s.last_model ORDER BY key";
        store.ask(|connection| {
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| {
                let after = |at| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)? - NOW);
                Ok((row.get(0)?, after(1)?, after(2)?, row.get(3)?))
            });
            rows.and_then(Iterator::collect)
        })
    }

    fn figures(store: &Store) -> (i64, i64, i64, i64) {
        let number = |sql: &str| -> i64 {
            store.ask(|connection| connection.query_row(sql, [], |row| row.get(0)))
        };
        (
            number("SELECT count(*) FROM request"),
            number("SELECT coalesce(sum(requests), 0) FROM usage_day"),
            number("SELECT coalesce(sum(input), 0) FROM usage_day"),
            number("SELECT coalesce(sum(model_switches), 0) FROM session"),
        )
    }

    #[test]
    fn a_withdrawn_request_is_as_if_it_had_never_been() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(&directory);
        let three = vec![report("a", "m", 0), report("sum", "n", 1), report("b", "m", 2)];
        store.write(three.clone(), NOW).expect("it is written");
        assert_eq!(figures(&store), (3, 3, 300, 2));
        assert_eq!(withdraw(&mut store, "sum"), DONE);
        assert_eq!(figures(&store), (2, 2, 200, 0));
        // Told again, and its report again.
        assert_eq!(withdraw(&mut store, "sum"), NOTHING);
        store.write(three, NOW).expect("it is written");
        assert_eq!(figures(&store), (2, 2, 200, 0));
    }

    #[test]
    fn what_is_withdrawn_before_it_comes_does_not_count() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(&directory);
        assert_eq!(withdraw(&mut store, "sum"), NOTHING);
        store.write(vec![report("sum", "n", 1), report("a", "m", 0)], NOW).expect("it is written");
        assert_eq!(figures(&store), (1, 1, 100, 0));
    }

    #[test]
    fn a_session_is_as_long_as_the_requests_that_are_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(&directory);
        let three =
            ["a", "b", "c"].into_iter().zip(0..).map(|(key, at)| report(key, key, at * 100));
        store.write(three.collect(), NOW).expect("it is written");
        let check = |store: &Store, expected: Option<(i64, i64, &str)>| {
            let expected = expected.map(|(started, ended, model)| {
                ("session".to_owned(), started, ended, Some(model.to_owned()))
            });
            assert_eq!(sessions(store), Vec::from_iter(expected));
        };
        check(&store, Some((-10, 200, "c")));
        assert_eq!(withdraw(&mut store, "c"), DONE);
        check(&store, Some((-10, 100, "b")));
        assert_eq!(withdraw(&mut store, "a"), DONE);
        check(&store, Some((90, 100, "b")));
        assert_eq!(withdraw(&mut store, "b"), DONE);
        check(&store, None);
        assert_eq!(figures(&store), (0, 0, 0, 0));
        // One that comes later begins it anew.
        store.write(vec![report("d", "d", 300)], NOW).expect("it is written");
        check(&store, Some((290, 300, "d")));
        assert_eq!(figures(&store), (1, 1, 100, 0));
    }

    #[test]
    fn a_merge_that_moves_the_only_request_leaves_no_empty_session() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(&directory);
        store.write(vec![report("a", "m", 0)], NOW).expect("it is written");
        let mut trusted = report("a", "m", 0);
        trusted.request.source = Some(RequestSource::Gateway);
        trusted.request.session_id = Some("another".to_owned());
        let written = store.write(vec![trusted], NOW).expect("it is written");
        assert_eq!(written.merged, 1);
        let another = ("another".to_owned(), -10, 0, Some("m".to_owned()));
        assert_eq!(sessions(&store), [another]);
    }

    #[test]
    fn what_retention_has_deleted_is_told_to_be_too_late_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(&directory);
        let two = vec![report("sum", "n", 0), report("a", "m", 100)];
        store.write(two.clone(), NOW).expect("it is written");
        assert_eq!(store.purge(NOW + 50).expect("it is written").rows, 1);
        let too_late = Withdrawn { taken_off: 0, too_late: 1 };
        assert_eq!(withdraw(&mut store, "sum"), too_late);
        assert_eq!(withdraw(&mut store, "sum"), NOTHING);
        store.write(two, NOW).expect("it is written");
        assert_eq!(figures(&store), (1, 2, 200, 1), "the sums keep it, and count it once");
        // The session keeps what retention has deleted.
        assert_eq!(withdraw(&mut store, "a"), DONE);
        let hour_end = (NOW / 3_600_000 + 1) * 3_600_000 - 1 - NOW;
        assert_eq!(sessions(&store), [("session".to_owned(), -10, hour_end.min(100), None)]);
    }
}
