//! Waiting: what it costs, which waiter acquires, and what a wait leaves behind.

mod cancelled;
mod engine;
mod futures;
