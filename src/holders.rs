//! Looks up the processes that hold a path, for the primitives and [`inspect`](crate::inspect()).

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Operation, Result};
use crate::holder::Holder;
use crate::record;
use crate::wait::Server;

/// The known processes of these participants of a barrier, in order.
pub(crate) fn of_participants(directory: &Arc<Path>, numbers: &[u32]) -> Result<Vec<Holder>> {
    record::participants(directory, numbers)
        .map_err(|source| Error::io(Operation::FindHolders, directory, source))
}

/// The known holders of `path`. For a semaphore's directory, they are in the order of their slots.
pub(crate) fn of(path: &Arc<Path>) -> Result<Vec<Holder>> {
    record::find(path, true).map_err(|source| Error::io(Operation::FindHolders, path, source))
}

/// The same. On a network file system the lookup takes at most as long as a call may.
pub(crate) fn asking(server: Option<&Server>, path: &Arc<Path>) -> Result<Vec<Holder>> {
    Server::ask_about(server, path, of)
}
