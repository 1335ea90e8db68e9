//! The option `--access`: who may use the files that a verb creates.

use clap::{Args, ValueEnum};
use flockwork::{Access, Options};

use crate::{front, signals};

#[derive(Debug, Default, Args)]
pub(crate) struct CreateArgs {
    /// Set who may use created files: as the umask says, only this user, also the group, or
    /// everyone
    #[arg(long, value_name = "WHO", value_enum, default_value_t = AccessLevel::Umask)]
    access: AccessLevel,
}

#[derive(Debug, Default, Clone, Copy, ValueEnum)]
enum AccessLevel {
    #[default]
    Umask,
    Private,
    Group,
    Everyone,
}

impl CreateArgs {
    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new().cancel(signals::cancel());
        if let Some(timeout) = front::server_timeout() {
            options = options.server_timeout(timeout);
        }
        options.access(match self.access {
            AccessLevel::Umask => Access::Umask,
            AccessLevel::Private => Access::Private,
            AccessLevel::Group => Access::Group,
            AccessLevel::Everyone => Access::Everyone,
        })
    }
}
