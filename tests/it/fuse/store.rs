//! The files of the server, and their locks by flock(2).

use std::collections::BTreeMap;

use rustix::io::Errno;

/// A file or a directory.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) modified: (u64, u32),
    pub(super) links: u32,
    pub(super) data: Vec<u8>,
    pub(super) names: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy)]
struct Lock {
    node: u64,
    owner: u64,
    is_exclusive: bool,
}

impl Lock {
    fn excludes(&self, other: &Self) -> bool {
        self.node == other.node
            && self.owner != other.owner
            && (self.is_exclusive || other.is_exclusive)
    }
}

pub(super) enum Locked {
    Yes,
    No,
    /// The request is among those that `granted` returns, once the lock is available.
    Later,
}

/// Nodes are never forgotten.
pub(super) struct Store {
    nodes: BTreeMap<u64, Node>,
    held: Vec<Lock>,
    /// The requests that wait, the first one first.
    waiting: Vec<(u64, Lock)>,
}

const ROOT: u64 = 1;

impl Store {
    pub(super) fn new() -> Self {
        let root = Node { mode: 0o40_777, links: 2, ..Node::default() };
        Self { nodes: [(ROOT, root)].into(), held: Vec::new(), waiting: Vec::new() }
    }

    pub(super) fn node(&mut self, number: u64) -> &mut Node {
        self.nodes.entry(number).or_default()
    }

    pub(super) fn look_up(&mut self, parent: u64, name: &str) -> Result<u64, Errno> {
        self.node(parent).names.get(name).copied().ok_or(Errno::NOENT)
    }

    pub(super) fn create(
        &mut self,
        parent: u64,
        name: &str,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<u64, Errno> {
        if self.look_up(parent, name).is_ok() {
            return Err(Errno::EXIST);
        }
        let number = self.nodes.keys().next_back().map_or(ROOT, |last| last + 1);
        self.nodes.insert(number, Node { mode, owner, links: 1, ..Node::default() });
        self.node(parent).names.insert(name.into(), number);
        Ok(number)
    }

    pub(super) fn link(&mut self, node: u64, parent: u64, name: &str) -> Result<(), Errno> {
        if self.look_up(parent, name).is_ok() {
            return Err(Errno::EXIST);
        }
        self.node(parent).names.insert(name.into(), node);
        self.node(node).links += 1;
        Ok(())
    }

    pub(super) fn remove(&mut self, parent: u64, name: &str) -> Result<(), Errno> {
        let node = self.look_up(parent, name)?;
        if !self.node(node).names.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.node(parent).names.remove(name);
        self.node(node).links -= 1;
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        (from, old): (u64, &str),
        (to, new): (u64, &str),
        replaces: bool,
    ) -> Result<(), Errno> {
        let node = self.look_up(from, old)?;
        match self.look_up(to, new) {
            Ok(_) if !replaces => return Err(Errno::EXIST),
            Ok(found) if found == node => return Ok(()),
            Ok(_) => self.remove(to, new)?,
            Err(_) => {}
        }
        self.node(from).names.remove(old);
        self.node(to).names.insert(new.into(), node);
        Ok(())
    }

    /// With `waits`, the number of a request, that request waits.
    pub(super) fn lock(
        &mut self,
        node: u64,
        owner: u64,
        is_exclusive: bool,
        waits: Option<u64>,
    ) -> Locked {
        let lock = Lock { node, owner, is_exclusive };
        if self.take(lock) {
            return Locked::Yes;
        }
        let Some(request) = waits else { return Locked::No };
        self.waiting.push((request, lock));
        Locked::Later
    }

    fn take(&mut self, lock: Lock) -> bool {
        let is_free = !self.held.iter().any(|held| held.excludes(&lock));
        if is_free {
            self.unlock(lock.node, lock.owner);
            self.held.push(lock);
        }
        is_free
    }

    pub(super) fn unlock(&mut self, node: u64, owner: u64) {
        self.held.retain(|held| (held.node, held.owner) != (node, owner));
    }

    pub(super) fn forget_locks(&mut self) {
        self.held.clear();
    }

    /// Grants the locks that are available to the requests that wait for them.
    pub(super) fn granted(&mut self) -> Vec<u64> {
        let mut granted = Vec::new();
        for (request, lock) in std::mem::take(&mut self.waiting) {
            if self.take(lock) {
                granted.push(request);
            } else {
                self.waiting.push((request, lock));
            }
        }
        granted
    }

    /// Ends the wait of a request, and returns whether it waited.
    pub(super) fn give_up(&mut self, request: u64) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|(waiting, _)| *waiting != request);
        self.waiting.len() < before
    }
}
