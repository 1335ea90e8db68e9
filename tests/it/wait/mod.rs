//! Waiting: what it costs, which waiter is served, and what a wait leaves behind.

mod cancelled;
mod engine;
mod futures;
