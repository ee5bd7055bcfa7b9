//! Memory of the answers that are under way.

use std::sync::Arc;

use bytes::Bytes;
use module_http::{Budget, Share};

use super::UpstreamError;

/// Size up to which an answer takes nothing of the memory of all: the number of connections bounds
/// those.
const SMALL: usize = 64 * 1024;

/// Memory of one answer, a part of that of all.
#[derive(Debug)]
pub(crate) struct Room {
    all: Arc<Budget>,
    most: usize,
    share: Option<Share>,
}

/// Bytes with the memory that they take.
struct Held {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Room {
    /// Creates the memory of an answer of at most so many bytes.
    pub(crate) fn new(all: &Arc<Budget>, most: usize) -> Self {
        Self { all: all.clone(), most, share: None }
    }

    /// Sets the largest size to a smaller one.
    pub(super) fn limit(&mut self, most: usize) {
        self.most = self.most.min(most);
    }

    /// Takes the memory for so many bytes in all. For few it gives back what it had.
    ///
    /// # Errors
    ///
    /// When one answer may not have so many, or the others leave too few.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), UpstreamError> {
        if bytes > self.most {
            return Err(UpstreamError::TooLarge(self.most));
        }
        if bytes <= SMALL {
            self.share = None;
            return Ok(());
        }
        let share = self.share.get_or_insert_with(|| self.all.share());
        share.grow_to(bytes).map_err(|_| UpstreamError::NoRoom)
    }

    /// Returns bytes that keep the memory for as long as they are there.
    pub(crate) fn hold(mut self, bytes: Bytes) -> Bytes {
        if self.take(bytes.len()).is_err() || self.share.is_none() {
            // A little more than was taken already, or next to nothing.
            return bytes;
        }
        Bytes::from_owner(Held { bytes, _room: self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_share_the_memory_and_give_it_back() {
        let all = Arc::new(Budget::new(1024 * 1024, 1024 * 1024));
        let most = 1024 * 1024;
        let mut first = Room::new(&all, most);
        first.take(900 * 1024).expect("there is room");
        let mut second = Room::new(&all, most);
        second.take(SMALL).expect("a small one takes nothing");
        assert_eq!(second.take(200 * 1024), Err(UpstreamError::NoRoom));
        let body = first.hold(Bytes::from(vec![0; 900 * 1024]));
        let part = body.slice(..10);
        drop(body);
        assert_eq!(second.take(200 * 1024), Err(UpstreamError::NoRoom), "a part of it is there");
        drop(part);
        second.take(200 * 1024).expect("it was given back");
        assert_eq!(second.take(most + 1), Err(UpstreamError::TooLarge(most)));
        second.take(10).expect("it gives back");
        Room::new(&all, most).take(1000 * 1024).expect("there is room again");
    }
}
