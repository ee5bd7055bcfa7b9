//! The ledger: the events that the daemon has promised not to lose.
//!
//! A directory of append-only segment files (`segments/`), written by one thread that commits in
//! groups; beside them the cursors and counters of the subscribers (`subscriptions.json` and a
//! copy), the losses found (`losses.json`), each subscriber's dead letters (`dead/`), and a reserve
//! of space for when the disk is full (`reserve`). The bus decides what is delivered to whom; this
//! module only keeps bytes and says which of them survived.

mod checked;
mod cursors;
mod dead;
mod error;
mod losses;
mod reader;
mod record;
mod relayed;
mod reserve;
mod segment;
mod segment_reader;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use cursors::{Content, Cursor, Cursors, Epoch, Loaded};
pub use cursors::{Counts, DropReason, Dropped};
pub use dead::DeadLetter;
pub(crate) use dead::{DeadStore, Taken};
pub use error::{LedgerError, LedgerTrouble, PublishError};
pub(crate) use error::{io_error, remedy};
pub(crate) use losses::Losses;
pub use losses::{Extent, Loss, LossKind};
pub(crate) use reader::Reader;
pub(crate) use record::{Audience, Entry, RawRecord};
pub use record::{Event, RareText, SharedEvent};
pub(crate) use reserve::{Reserve, is_full};
#[cfg(test)]
pub(crate) use segment::full_disk;
pub use store::{Durability, LedgerHealth};
pub(crate) use store::{Ledger, Memory, Opened, SegmentInfo, now_ms};
pub(crate) use writer::{Job, Writer};
