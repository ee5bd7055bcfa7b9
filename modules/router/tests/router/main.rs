//! The router before providers that answer as the tests say.

mod bounds;
mod budgets;
mod cascade;
mod content;
mod experiments;
mod faults;
mod gateway;
mod passing;
mod people;
mod quality;
mod trying;
mod upstream;
