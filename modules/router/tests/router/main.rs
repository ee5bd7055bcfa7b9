//! The router before providers that answer as the tests say.

mod begun;
mod bounds;
mod budgets;
mod cascade;
mod content;
mod endpoints;
mod experiments;
mod failoverbench;
mod faults;
mod forms;
mod gateway;
mod hedging;
mod memory;
mod passing;
mod people;
mod policy;
mod quality;
mod trying;
mod upstream;
