//! Events of other daemons, and the question whether anybody wants a topic.

use std::sync::Arc;

use lodestar_abi::{
    Completion_TO, NewEvent,
    abi_stable::{erased_types::TD_Opaque, std_types::RSome},
};

use super::{Acceptance, Host, Shared, Signal, flags, nanoseconds};
use crate::{Error, RelayedEvent, Result};

impl Host {
    /// Returns whether an event of a topic would reach a module: one that runs and subscribes to
    /// it, or one for which it would wait. Ask before making events that cost something to make,
    /// and each time: modules come and go.
    #[must_use]
    pub fn wanted(&self, topic: &str) -> bool {
        self.inner.services.wanted(topic.into())
    }

    /// Publishes events of another daemon under the id, time and origin that they have there, and
    /// reports when all of them are accepted. One that was relayed before is accepted and goes
    /// nowhere: as far as the host remembers, see adr/0065.
    ///
    /// The manifest needs `[capabilities] relays = true`, and the topics in `bus.publishes`.
    ///
    /// ```
    /// # use module_sdk::{Class, Host, RelayedEvent, Result};
    /// async fn receive(host: &Host, id: &str, time: &str, data: &[u8]) -> Result<()> {
    ///     let event = RelayedEvent {
    ///         id: id.parse()?,
    ///         time: time.parse()?,
    ///         origin: "//laptop-1/lodestar/ingest",
    ///         topic: "llm.request.completed",
    ///         class: Class::Ledger,
    ///         subject: "",
    ///         traceparent: "",
    ///         data,
    ///     };
    ///     host.relay(&[event]).await
    /// }
    /// ```
    pub fn relay(&self, events: &[RelayedEvent<'_>]) -> Acceptance {
        let shared = Arc::new(Shared::default());
        if events.is_empty() {
            shared.settle(Ok(()));
        } else if let Err(error) = self.relay_all(events, &shared) {
            shared.settle(Err(error));
        }
        Acceptance { shared }
    }

    fn relay_all(&self, events: &[RelayedEvent<'_>], done: &Arc<Shared>) -> Result<()> {
        let relayed: Vec<_> = events
            .iter()
            .map(|event| lodestar_abi::RelayedEvent {
                id: *event.id.as_bytes(),
                origin: event.origin.into(),
                event: NewEvent {
                    time_ns: nanoseconds(event.time),
                    flags: flags(event.class),
                    topic: event.topic.into(),
                    subject: event.subject.into(),
                    traceparent: event.traceparent.into(),
                    data: event.data.into(),
                    reserved: [0; 4],
                },
                reserved: [0; 2],
            })
            .collect();
        let completion = Completion_TO::from_value(Signal(done.clone()), TD_Opaque);
        let result = self.inner.services.relay(relayed.as_slice().into(), RSome(completion));
        result.into_result().map_err(Error::from_abi)
    }
}
