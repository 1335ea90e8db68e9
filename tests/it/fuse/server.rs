//! The server: reads requests from `/dev/fuse`, and answers them from a [`Store`]. The structures
//! are those of Linux's `include/uapi/linux/fuse.h`, protocol 7.31.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::store::{Locked, Store};

const MAX_WRITE: u32 = 1 << 16;
const INIT: u32 = 26;
const POSIX_LOCKS: u32 = 1 << 1;
const FLOCK_LOCKS: u32 = 1 << 10;
const DIRECT_IO: u32 = 1;
const OF_FLOCK: u32 = 1;
const RELEASE_UNLOCKS: u32 = 1 << 1;

/// Answers requests until the standard input ends.
pub(super) fn run(directory: &Path, kind: &str) {
    match mount(directory, kind) {
        Ok(device) => {
            let server = Arc::new(Mutex::new(Server::new(device.try_clone().unwrap())));
            let reading = Arc::clone(&server);
            std::thread::spawn(move || read_all(device, &reading));
            say("mounted");
            for line in std::io::stdin().lines().map_while(Result::ok) {
                let mut server = server.lock().unwrap();
                match &*line {
                    "hang" => server.hangs = true,
                    "resume" => server.resume(),
                    "forget" => server.forget_locks(),
                    _ => {}
                }
                say(&server.operations.to_string());
            }
            let _ = rustix::mount::unmount(directory, UnmountFlags::FORCE | UnmountFlags::DETACH);
        }
        Err(error) => say(&error.to_string()),
    }
}

fn say(answer: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "fuse: {answer}").unwrap();
    out.flush().unwrap();
}

fn mount(directory: &Path, kind: &str) -> std::io::Result<File> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let options =
        format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    let options = CString::new(options)?;
    rustix::mount::mount("test", directory, kind, MountFlags::empty(), options.as_c_str())?;
    Ok(device)
}

fn read_all(mut device: File, server: &Mutex<Server>) {
    let mut buffer = vec![0; MAX_WRITE as usize + 4096];
    // The end of the mount is an error.
    while let Ok(length) = device.read(&mut buffer) {
        server.lock().unwrap().receive(Request::new(buffer[..length].to_vec()));
    }
}

/// A request: a header of 40 bytes, and what belongs to the operation.
struct Request {
    bytes: Vec<u8>,
    at: usize,
}

impl Request {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 40 }
    }

    fn number(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    fn operation(&self) -> u32 {
        u32::from_le_bytes(self.bytes[4..8].try_into().unwrap())
    }

    fn unique(&self) -> u64 {
        self.number(8)
    }

    fn node(&self) -> u64 {
        self.number(16)
    }

    fn owner(&self) -> (u32, u32) {
        let ids = self.number(24);
        (low(ids), low(ids >> 32))
    }

    fn u32(&mut self) -> u32 {
        self.at += 4;
        u32::from_le_bytes(self.bytes[self.at - 4..self.at].try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        self.at += 8;
        self.number(self.at - 8)
    }

    fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    fn name(&mut self) -> String {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == 0).unwrap();
        self.at += length + 1;
        String::from_utf8_lossy(&rest[..length]).into_owned()
    }
}

fn low(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap()
}

struct Server {
    device: File,
    store: Store,
    hangs: bool,
    withheld: VecDeque<Request>,
    operations: u64,
}

/// The reply to a request; `None` if there is none now.
type Reply = Result<Option<Vec<u8>>, Errno>;

impl Server {
    fn new(device: File) -> Self {
        let (store, withheld) = (Store::new(), VecDeque::new());
        Self { device, store, hangs: false, withheld, operations: 0 }
    }

    fn receive(&mut self, request: Request) {
        self.operations += 1;
        // Until the first request is answered, the kernel sends no other one.
        if self.hangs && request.operation() != INIT {
            self.withheld.push_back(request);
        } else {
            self.answer(request);
        }
    }

    fn resume(&mut self) {
        self.hangs = false;
        while let Some(request) = self.withheld.pop_front() {
            self.answer(request);
        }
    }

    fn forget_locks(&mut self) {
        self.store.forget_locks();
        self.grant();
    }

    fn answer(&mut self, mut request: Request) {
        let unique = request.unique();
        match self.reply(&mut request) {
            Ok(Some(reply)) => self.send(unique, 0, &reply),
            Ok(None) => {}
            Err(error) => self.send(unique, error.raw_os_error(), &[]),
        }
        self.grant();
    }

    fn grant(&mut self) {
        for granted in self.store.granted() {
            self.send(granted, 0, &[]);
        }
    }

    /// The reply may come too late for a request whose process has ended.
    fn send(&mut self, unique: u64, error: i32, reply: &[u8]) {
        let mut bytes = Vec::with_capacity(16 + reply.len());
        bytes.extend(u32::try_from(16 + reply.len()).unwrap().to_le_bytes());
        bytes.extend((-error).to_le_bytes());
        bytes.extend(unique.to_le_bytes());
        bytes.extend(reply);
        let _ = self.device.write(&bytes);
    }

    #[allow(clippy::too_many_lines, reason = "one arm for each operation")]
    fn reply(&mut self, request: &mut Request) -> Reply {
        let (node, store) = (request.node(), &mut self.store);
        let nothing = Ok(Some(Vec::new()));
        match request.operation() {
            1 => {
                let found = store.look_up(node, &request.name())?;
                Ok(Some(entry(store, found)))
            }
            3 => Ok(Some(attributes(store, node))),
            4 => {
                let valid = request.u32();
                request.skip(12);
                let size = request.u64();
                request.skip(16);
                let seconds = request.u64();
                request.skip(12);
                let modified = (seconds, request.u32());
                request.skip(4);
                let mode = request.u32();
                request.skip(4);
                let owner = (request.u32(), request.u32());
                let is_set = |bit: u32| valid & bit != 0;
                let of_node = store.node(node);
                if is_set(1) {
                    of_node.mode = of_node.mode & 0o170_000 | mode & 0o7777;
                }
                if is_set(2) {
                    of_node.owner.0 = owner.0;
                }
                if is_set(4) {
                    of_node.owner.1 = owner.1;
                }
                if is_set(1 << 5) {
                    of_node.modified = modified;
                }
                if is_set(8) {
                    of_node.data.resize(usize::try_from(size).unwrap(), 0);
                }
                Ok(Some(attributes(store, node)))
            }
            // MKNOD, MKDIR and CREATE.
            operation @ (8 | 9 | 35) => {
                let flags_or_mode = request.u32();
                let mode = match operation {
                    8 => {
                        request.skip(12);
                        flags_or_mode
                    }
                    9 => {
                        request.skip(4);
                        0o40_000 | flags_or_mode
                    }
                    _ => {
                        let mode = request.u32();
                        request.skip(8);
                        0o100_000 | mode & 0o7777
                    }
                };
                let created = store.create(node, &request.name(), mode, request.owner())?;
                let mut reply = entry(store, created);
                if operation == 35 {
                    reply.extend(opened(created));
                }
                Ok(Some(reply))
            }
            10 | 11 => store.remove(node, &request.name()).map(|()| Some(Vec::new())),
            operation @ (12 | 45) => {
                let to = request.u64();
                let replaces = operation == 12 || request.u64() & 1 == 0;
                let (old, new) = (request.name(), request.name());
                store.rename((node, &old), (to, &new), replaces).map(|()| Some(Vec::new()))
            }
            13 => {
                let linked = request.u64();
                store.link(linked, node, &request.name())?;
                Ok(Some(entry(store, linked)))
            }
            14 | 27 => Ok(Some(opened(node))),
            15 => {
                request.skip(8);
                let (offset, size) = (request.u64(), request.u32());
                let data = &store.node(node).data;
                let start = usize::try_from(offset).unwrap().min(data.len());
                let end = data.len().min(start + size as usize);
                Ok(Some(data[start..end].to_vec()))
            }
            16 => {
                request.skip(8);
                let (offset, size) = (request.u64(), request.u32());
                request.skip(20);
                let written = &request.bytes[request.at..request.at + size as usize];
                let start = usize::try_from(offset).unwrap();
                let data = &mut store.node(node).data;
                data.resize(data.len().max(start + written.len()), 0);
                data[start..start + written.len()].copy_from_slice(written);
                Ok(Some(u64::from(size).to_le_bytes().to_vec()))
            }
            17 => {
                let (blocks, free) = (1_u64 << 20, 1_u64 << 19);
                let mut reply = Vec::new();
                for number in [blocks, free, free, blocks, free] {
                    reply.extend(number.to_le_bytes());
                }
                for number in [4096_u32, 255, 4096, 0, 0, 0, 0, 0, 0, 0] {
                    reply.extend(number.to_le_bytes());
                }
                Ok(Some(reply))
            }
            18 => {
                request.skip(12);
                let (flags, owner) = (request.u32(), request.u64());
                if flags & RELEASE_UNLOCKS != 0 {
                    store.unlock(node, owner);
                }
                nothing
            }
            // FSYNC, FLUSH, RELEASEDIR, FSYNCDIR and ACCESS.
            20 | 25 | 29 | 30 | 34 => nothing,
            INIT => Ok(Some(initial(request))),
            28 => {
                request.skip(8);
                let (offset, size) = (request.u64(), request.u32());
                Ok(Some(listing(store, node, offset, size as usize)))
            }
            // SETLK and SETLKW.
            operation @ (32 | 33) => {
                request.skip(8);
                let owner = request.u64();
                request.skip(16);
                let kind = request.u32();
                request.skip(4);
                if request.u32() & OF_FLOCK == 0 {
                    return Err(Errno::NOSYS);
                }
                let waits = (operation == 33).then(|| request.unique());
                match (kind, waits) {
                    (2, _) => store.unlock(node, owner),
                    (kind, waits) => match store.lock(node, owner, kind == 1, waits) {
                        Locked::Yes => {}
                        Locked::No => return Err(Errno::AGAIN),
                        Locked::Later => return Ok(None),
                    },
                }
                nothing
            }
            // INTERRUPT: only a wait for a lock ends.
            36 => {
                let interrupted = request.u64();
                if self.store.give_up(interrupted) {
                    self.send(interrupted, Errno::INTR.raw_os_error(), &[]);
                }
                Ok(None)
            }
            // FORGET and BATCH_FORGET.
            2 | 42 => Ok(None),
            _ => Err(Errno::NOSYS),
        }
    }
}

fn initial(request: &mut Request) -> Vec<u8> {
    request.skip(12);
    let flags = request.u32() & (POSIX_LOCKS | FLOCK_LOCKS);
    let mut reply = Vec::new();
    for number in [7, 31, 0, flags, 0, MAX_WRITE, 1] {
        reply.extend(number.to_le_bytes());
    }
    reply.resize(64, 0);
    reply
}

/// The kernel keeps nothing, and asks each time.
fn attributes(store: &mut Store, node: u64) -> Vec<u8> {
    let mut reply = vec![0; 16];
    reply.extend(attribute(store, node));
    reply
}

fn attribute(store: &mut Store, number: u64) -> Vec<u8> {
    let node = store.node(number);
    let mut reply = Vec::new();
    let (seconds, nanoseconds) = node.modified;
    for number in [number, node.data.len() as u64, 1, 0, seconds, 0] {
        reply.extend(number.to_le_bytes());
    }
    for number in [0, nanoseconds, 0, node.mode, node.links, node.owner.0, node.owner.1, 0, 4096, 0]
    {
        reply.extend(number.to_le_bytes());
    }
    reply
}

fn entry(store: &mut Store, node: u64) -> Vec<u8> {
    let mut reply = node.to_le_bytes().to_vec();
    reply.resize(40, 0);
    reply.extend(attribute(store, node));
    reply
}

fn opened(node: u64) -> Vec<u8> {
    let mut reply = node.to_le_bytes().to_vec();
    reply.extend(u64::from(DIRECT_IO).to_le_bytes());
    reply
}

fn listing(store: &mut Store, node: u64, offset: u64, size: usize) -> Vec<u8> {
    let mut reply = Vec::new();
    let names = store.node(node).names.clone();
    for (index, (name, number)) in (1_u64..).zip(names).skip(usize::try_from(offset).unwrap()) {
        let kind = store.node(number).mode >> 12;
        let length = (24 + name.len()).next_multiple_of(8);
        if reply.len() + length > size {
            break;
        }
        let end = reply.len() + length;
        reply.extend(number.to_le_bytes());
        reply.extend(index.to_le_bytes());
        reply.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
        reply.extend(kind.to_le_bytes());
        reply.extend(name.as_bytes());
        reply.resize(end, 0);
    }
    reply
}
