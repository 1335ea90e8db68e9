//! The files that primitives are made of: what is on disk, and no time.

pub(crate) mod data_file;
pub(crate) mod durability;
pub(crate) mod guard;
pub(crate) mod lock_file;
pub(crate) mod marker;
mod regular;
