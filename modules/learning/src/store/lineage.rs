//! Origin of a version: the examples that it was trained on, and the consent of each.

use rusqlite::Row;
use serde::Serialize;

use module_sdk::Result;

use super::Store;

/// An example that was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrainedOn {
    /// Id of the example.
    pub example: String,
    /// Id of the consent that it was kept under.
    pub consent: String,
    /// `true` when somebody wanted it forgotten since.
    pub is_forgotten: bool,
}

impl Store {
    /// Returns the examples of a dataset that are trained on, in the order of their ids.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn trained_on(&self, dataset: &str) -> Result<Vec<TrainedOn>> {
        let sql = "SELECT d.example, d.consent, e.forgotten_at IS NOT NULL FROM dataset_example d
                   LEFT JOIN example e ON e.id = d.example
                   WHERE d.dataset = ?1 AND d.split = 'train' ORDER BY 1";
        let row = |row: &Row<'_>| {
            Ok(TrainedOn { example: row.get(0)?, consent: row.get(1)?, is_forgotten: row.get(2)? })
        };
        self.read(|connection| connection.prepare_cached(sql)?.query_map([dataset], row)?.collect())
    }
}
