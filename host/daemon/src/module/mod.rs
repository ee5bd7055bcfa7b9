//! A module at run time: its thread, its state, and the services that the host gives it.

mod acceptance;
mod accounting;
mod cache;
mod calls;
mod error;
mod event_loop;
mod generation;
mod handover;
mod image;
mod latency;
mod meter;
mod outgoing_calls;
pub(crate) mod refusals;
mod request;
mod router;
mod services;
mod state;
mod successor;
mod thread;
mod window;
mod worker;

pub(crate) use acceptance::{BUSY, MOMENT};
pub use accounting::{CallClock, CpuTime, Tasks, Used};
pub use calls::{Answer, Call, CallError, CommandCall, reply_channel};
pub use error::{ConfigureError, SecretError};
pub use event_loop::to_abi;
pub use handover::OneShotFlag;
pub(crate) use image::with_files;
pub use image::{GONE, Image, Instance, ProcessImage, ProcessView, Refused, StartProcess};
pub use latency::{Durations, Latency};
pub use meter::{Measured, Meter, Work};
pub use outgoing_calls::Operate;
pub(crate) use request::is_reply;
pub use request::{ModuleCall, ModuleRequest};
pub use router::{CallRouter, Route};
pub(crate) use services::may_publish;
pub use services::{Grant, ServiceContext, Services};
pub use state::{Entry, Known, State, Transition};
pub use thread::{
    Admit, Bounds, Configure, Configured, Ended, ModuleEvent, NoteProbation, Notify, Placing,
    RestartPolicy, Start, StartGate, TakeOver, spawn,
};
pub(crate) use window::{WINDOW, Window};
