//! The processes that hold a path, as the primitives and [`inspect`](crate::inspect()) look them up.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Operation, Result};
use crate::holder::Holder;
use crate::record;

/// The holders of `path` as far as they are known; of a semaphore's directory in the order of its
/// slots.
pub(crate) fn of(path: &Arc<Path>) -> Result<Vec<Holder>> {
    record::find(path, true).map_err(|source| Error::io(Operation::FindHolders, path, source))
}
