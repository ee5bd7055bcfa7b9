//! A provider of models that answers by a script, records what it is asked, and fails as told.
//!
//! It speaks the dialects of OpenAI (chat, responses, completions, embeddings, models), Anthropic
//! (messages, counting, models), Ollama and Gemini, as streams and not, over HTTP/1.1.
//!
//! ```
//! use harness::{FakeUpstream, upstream::{Answer, Cut, Fault, Outcome}};
//!
//! let upstream = FakeUpstream::start();
//! upstream.next(Answer::rate_limited(1));
//! upstream.model("broken", Answer::fault(Fault::CutAfter { events: 2, how: Cut::Reset }));
//!
//! let ask = || harness::http::post(
//!     &upstream.address(), "/v1/chat/completions", &[], br#"{"model":"m","messages":[]}"#,
//! );
//! assert_eq!(ask()?.status, 429);
//! assert_eq!(ask()?.json()["usage"]["prompt_tokens"], 1200);
//! assert_eq!(upstream.exchanges()[1].outcome, Outcome::Whole);
//! # Ok::<(), std::io::Error>(())
//! ```

mod answer;
mod anthropic;
mod dialect;
mod gemini;
mod ollama;
mod openai;
mod record;
mod render;
mod serve;
#[cfg(test)]
mod tests;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
};

pub use answer::{Answer, Cut, Encoding, Fault, Tool, Usage, UsagePlace, Wire};
pub use dialect::Dialect;
pub use record::{Exchange, Outcome};

use crate::PATIENCE;
use record::Shared;

/// An upstream on the loopback, with a thread of its own. It ends when it is dropped.
pub struct FakeUpstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Option<Running>,
}

struct Running {
    stop: tokio::sync::oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl FakeUpstream {
    /// Starts on a free port. It has the models `m`, `small` and `large`.
    ///
    /// # Panics
    ///
    /// When no port is free.
    #[must_use]
    pub fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts at an address.
    ///
    /// # Panics
    ///
    /// When the address is in use.
    #[must_use]
    pub fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let mut upstream = Self { address, shared: Arc::default(), running: None };
        upstream.shared.salted(format!("{:x}", address.port()));
        upstream.shared.state().models = ["m", "small", "large"].map(str::to_owned).into();
        upstream.run(listener);
        upstream
    }

    fn run(&mut self, listener: TcpListener) {
        listener.set_nonblocking(true).expect("a socket can be told not to block");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let shared = self.shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime needs two descriptors").block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener);
                let listener = listener.expect("it does not block");
                tokio::select! {
                    () = serve::accept(listener, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        self.running = Some(Running { stop, thread });
    }

    /// Returns the address, `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Returns `http://127.0.0.1:PORT` with a path behind it, for a `base_url`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Ends all connections; new ones are refused.
    pub fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            // Where nobody hears it, it has ended.
            let _ = stop.send(());
            let _ = thread.join();
        }
    }

    /// Starts again at the same address, after [`Self::stop`].
    ///
    /// # Panics
    ///
    /// When another program has taken the address.
    pub fn start_again(&mut self) {
        if self.running.is_none() {
            let listener = TcpListener::bind(self.address).expect("nobody has taken the address");
            self.run(listener);
        }
    }

    /// Sets the answer where nothing else is scripted.
    pub fn always(&self, answer: Answer) {
        self.shared.state().usual = answer;
    }

    /// Queues the answer of one request to a model; requests for lists of models take none.
    pub fn next(&self, answer: Answer) {
        self.shared.state().next.push_back(answer);
    }

    /// Sets the answer of a model.
    pub fn model(&self, model: &str, answer: Answer) {
        self.shared.state().by_model.insert(model.to_owned(), answer);
    }

    /// Sets the answer of a path, that of a list of models too; of that, only faults, headers and
    /// times count.
    pub fn path(&self, path: &str, answer: Answer) {
        self.shared.state().by_path.insert(path.to_owned(), answer);
    }

    /// Sets what chooses an answer where none is queued or set for the model.
    pub fn decide(&self, decide: impl Fn(&Exchange) -> Option<Answer> + Send + Sync + 'static) {
        self.shared.state().decide = Some(Arc::new(decide));
    }

    /// Sets the models that there are. Others are answered as unknown.
    pub fn only_models(&self, models: &[&str]) {
        let mut state = self.shared.state();
        state.models = models.iter().map(|&name| name.to_owned()).collect();
        state.only = true;
    }

    /// Returns what happened so far, oldest first.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.state().exchanges.clone()
    }

    /// Returns the requests to models so far, without those for lists of models.
    #[must_use]
    pub fn asked(&self) -> Vec<Exchange> {
        let mut exchanges = self.exchanges();
        exchanges.retain(|it| it.method == "POST" && it.dialect != Some(Dialect::OllamaShow));
        exchanges
    }

    /// Waits until `found` finds something in what happened.
    ///
    /// # Panics
    ///
    /// When it never does.
    pub fn wait<T>(&self, what: &str, found: impl FnMut(&[Exchange]) -> Option<T>) -> T {
        self.shared
            .wait(PATIENCE, found)
            .unwrap_or_else(|| panic!("waited in vain: {what}; {:#?}", self.exchanges()))
    }

    /// Waits until an exchange has an outcome, and returns it.
    ///
    /// # Panics
    ///
    /// When it has none in the end.
    pub fn outcome(&self, index: usize) -> Exchange {
        self.wait("an exchange ends", |exchanges| {
            let exchange = exchanges.get(index)?;
            (exchange.outcome != Outcome::Pending).then(|| exchange.clone())
        })
    }
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for FakeUpstream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FakeUpstream").field("address", &self.address).finish()
    }
}
