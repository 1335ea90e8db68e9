//! Peers that run as another user, so that permissions apply to them.

use std::process::Command;

use crate::peer::{Peer, Request};

/// Starts a peer that is not the superuser.
pub(crate) fn unprivileged() -> Peer {
    Unprivileged::new().start()
}

/// Starts peers that are not the superuser.
pub(crate) struct Unprivileged(Option<tempfile::TempDir>);

impl Unprivileged {
    pub(crate) fn new() -> Self {
        use std::os::unix::fs::PermissionsExt as _;

        if !rustix::process::geteuid().is_root() {
            return Self(None);
        }
        // The directory of this binary may be closed to others, so the peer runs a copy in a public
        // directory.
        let dir = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        super::copy_program(std::env::current_exe().unwrap(), &dir.path().join("it"));
        Self(Some(dir))
    }

    pub(crate) fn start(&mut self) -> Peer {
        use std::os::unix::process::CommandExt as _;

        let Some(dir) = &self.0 else { return Peer::start() };
        let mut command = Command::new(dir.path().join("it"));
        command.uid(65534).gid(65534).current_dir("/");
        let mut peer = Peer::start_as(command);
        // The copy can be removed once the peer runs.
        peer.run(Request::ProcessId);
        peer
    }
}
