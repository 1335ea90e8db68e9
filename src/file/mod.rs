//! The files of the primitives: lock files, markers and data files. Nothing here waits or reads the
//! clock.

pub(crate) mod data_file;
pub(crate) mod durability;
pub(crate) mod fence;
pub(crate) mod guard;
pub(crate) mod lock_file;
pub(crate) mod marker;
pub(crate) mod open;
mod regular;
pub(crate) mod ticket_queue;
