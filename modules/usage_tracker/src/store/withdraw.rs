//! Taking off requests that turned out to be none.

use rusqlite::TransactionBehavior;

use super::{Store, StoreError, error::At as _, write::Batch};

impl Store {
    /// Takes requests off by their dedupe keys, in one transaction: rows, sums and sessions are as
    /// if they had never been. A key that is not known yet counts no more either. Answers how
    /// many were taken off. `now_ms` is the time, Unix milliseconds.
    ///
    /// # Errors
    ///
    /// When the database cannot be written; nothing is taken off, then.
    pub fn withdraw(&mut self, keys: &[String], now_ms: i64) -> Result<usize, StoreError> {
        let before = self.last_request;
        let withdrawn = self.withdraw_all(keys, now_ms);
        if withdrawn.is_err() {
            self.forget_since(before);
        }
        withdrawn.at(&self.path)
    }

    fn withdraw_all(&mut self, keys: &[String], now_ms: i64) -> rusqlite::Result<usize> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut batch = Batch::new(
            &transaction,
            (&mut self.names, &mut self.sessions),
            &mut self.options,
            &mut self.last_request,
            now_ms,
        )?;
        let mut withdrawn = 0;
        for key in keys {
            withdrawn += usize::from(batch.withdraw(key)?);
        }
        batch.finish()?;
        transaction.commit()?;
        Ok(withdrawn)
    }
}

#[cfg(test)]
mod tests {
    use module_sdk::events::LlmRequestCompleted;
    use uuid::Uuid;

    use crate::{
        intake::Report,
        store::{Options, Store},
    };

    const NOW: i64 = 1_795_000_000_000;

    fn report(key: &str, model: &str, after_ms: i64) -> Report {
        let request = LlmRequestCompleted {
            dedupe_key: key.to_owned(),
            ended_at: NOW + after_ms,
            session_id: Some("session".to_owned()),
            request_model: Some(model.to_owned()),
            input_tokens: Some(100),
            ..Default::default()
        };
        Report::new(Uuid::now_v7(), request, NOW)
    }

    fn figures(store: &Store) -> (i64, i64, i64, i64) {
        let number = |sql: &str| {
            store.connection.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("it answers")
        };
        (
            number("SELECT count(*) FROM request"),
            number("SELECT coalesce(sum(requests), 0) FROM usage_day"),
            number("SELECT coalesce(sum(input), 0) FROM usage_day"),
            number("SELECT sum(model_switches) FROM session"),
        )
    }

    #[test]
    fn a_withdrawn_request_is_as_if_it_had_never_been() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("u.db");
        let mut store = Store::open(&path, Options::default()).expect("it opens");
        let three = vec![report("a", "m", 0), report("sum", "n", 1), report("b", "m", 2)];
        store.write(three.clone(), NOW).expect("it is written");
        assert_eq!(figures(&store), (3, 3, 300, 2));
        assert_eq!(store.withdraw(&["sum".to_owned()], NOW).expect("it is written"), 1);
        assert_eq!(figures(&store), (2, 2, 200, 0));
        // Told again, and its report again.
        assert_eq!(store.withdraw(&["sum".to_owned()], NOW).expect("it is written"), 0);
        store.write(three, NOW).expect("it is written");
        assert_eq!(figures(&store), (2, 2, 200, 0));
    }

    #[test]
    fn what_is_withdrawn_before_it_comes_does_not_count() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("u.db");
        let mut store = Store::open(&path, Options::default()).expect("it opens");
        assert_eq!(store.withdraw(&["sum".to_owned()], NOW).expect("it is written"), 0);
        store.write(vec![report("sum", "n", 1), report("a", "m", 0)], NOW).expect("it is written");
        assert_eq!(figures(&store), (1, 1, 100, 0));
    }
}
