//! SQLite databases for modules: checked when opened, monitored, pruned and backed up.
//!
//! A [`Spec`] describes the database: its name, its file, its application id, and the migrations of
//! its schema. [`Database::open`] opens it in the module's data directory, creates it if it is
//! missing, and migrates its schema. A file of another program, of a newer version or with damage
//! is refused and left unchanged. A database that is locked, missing or on a full disk does not
//! stop the module: it is opened again with the next piece of work, events wait in the ledger until
//! then, and [`Database::health`] gives the reason.
//!
//! There is one writer, on the module's thread ([`Database::write`]); a separate thread copies the
//! write-ahead log into the file. Queries use read-only connections ([`Database::read`], [`Reader`]
//! for other threads). [`Database::delete_older`] deletes in chunks, [`Reader::backup`] copies the
//! database while it is written.
//!
//! ```
//! use module_sdk::{Event, Health, Host, Module, NoArgs, Reply, Result, Wiring};
//! use module_sdk::events::LlmRequestCompleted;
//! use module_sqlite::{Database, Spec};
//!
//! /// In a file of its own: `&[include_str!("../migrations/0001_models.sql")]`.
//! const MIGRATIONS: &[&str] = &["CREATE TABLE model (name TEXT PRIMARY KEY, requests INTEGER)"];
//! const MODELS: Spec = Spec::new("database of models", "models.db", *b"MODL", MIGRATIONS);
//!
//! struct Models {
//!     database: Database,
//! }
//!
//! impl Module for Models {
//!     type Config = NoArgs;
//!
//!     fn start(_: NoArgs, host: &Host) -> Result<Self> {
//!         Ok(Self { database: Database::open(host, MODELS)? })
//!     }
//!
//!     fn wire(wiring: &mut Wiring<Self>) {
//!         wiring.on(Self::completed).command("list", Self::list);
//!     }
//!
//!     fn health(&self) -> Health {
//!         self.database.health()
//!     }
//! }
//!
//! impl Models {
//!     fn completed(&mut self, event: &Event<'_, LlmRequestCompleted>) -> Result<()> {
//!         let sql = "INSERT INTO model VALUES (?1, 1)
//!                    ON CONFLICT (name) DO UPDATE SET requests = requests + 1";
//!         self.database.write(|transaction| {
//!             transaction.prepare_cached(sql)?.execute([&event.data.request_model])
//!         })?;
//!         Ok(())
//!     }
//!
//!     fn list(&mut self, _: NoArgs) -> Result<Reply> {
//!         let models: Vec<(String, i64)> = self.database.read(|connection| {
//!             let mut all = connection.prepare("SELECT name, requests FROM model ORDER BY name")?;
//!             all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
//!         })?;
//!         Reply::json(&models)
//!     }
//! }
//!
//! # use module_sdk::testing::Bench;
//! # use serde_json::json;
//! let mut bench = Bench::<Models>::start(json!({})).expect("it starts");
//! let request = LlmRequestCompleted { request_model: Some("m".into()), ..Default::default() };
//! bench.send_all(&[request.clone(), request]).1.expect("they are written");
//! let reply = bench.command("list", json!({})).expect("it answers");
//! assert_eq!(reply.data, json!([["m", 2]]));
//! ```

mod backup;
mod checkpoint;
mod database;
mod error;
mod known;
mod meta;
mod open;
mod reader;
mod retention;
mod spec;
mod writer;

pub use database::{Database, Ready};
pub use error::{DatabaseError, DatabaseErrorKind};
pub use meta::{number, raise};
pub use reader::Reader;
pub use retention::Chunks;
pub use rusqlite;
pub use spec::{AddedColumn, Counted, Durability, Options, Spec};
