//! The files of the primitives. Nothing here knows time.

pub(crate) mod data_file;
pub(crate) mod durability;
pub(crate) mod guard;
pub(crate) mod lock_file;
pub(crate) mod marker;
pub(crate) mod open;
mod regular;
