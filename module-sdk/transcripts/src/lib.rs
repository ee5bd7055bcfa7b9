//! Transcripts that AI tools keep: where they lie, whether they changed, and the rows of those
//! that are databases.
//!
//! A [`Tool`] writes transcripts, a [`Place`] is where they lie, and a
//! [`FileMark`](module_sdk::FileMark) tells whether a file is as it was. The content of files is
//! not read here, but for the hash of its beginning ([`head`]); of a [`database`] only what tells
//! of usage leaves it.
//!
//! The table of tools is closed: a module can name a tool and no place of its own, so that no
//! module makes the command line send other files of the person who types.
//!
//! ```
//! use std::path::Path;
//!
//! use module_transcripts::{Tool, existing};
//!
//! let places = Tool::Codex.places(Some(Path::new("/home/ada")), &|_| None);
//! assert_eq!(places[0].path, Path::new("/home/ada/.codex/sessions"));
//!
//! for place in existing(places) {
//!     for file in place.find()? {
//!         println!("{}: {:?}", file.path.display(), file.state);
//!     }
//! }
//! # Ok::<(), module_transcripts::FindError>(())
//! ```

pub mod database;
mod find;
mod place;
mod tool;

pub use find::{FindError, Found, HEAD_BYTES, find, head};
pub use place::{Holds, Place, existing};
pub use tool::Tool;
