//! The option `--access`: who may use the files that a verb creates.

use clap::{Args, ValueEnum};
use flockwork::{Access, Options};

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Who may use the files that are created: as the umask says, this user, the group too, or
    /// everyone
    #[arg(long, value_name = "WHO", value_enum, default_value_t = Who::Umask)]
    access: Who,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Who {
    Umask,
    Private,
    Group,
    Everyone,
}

impl CreateArgs {
    pub(crate) fn options(&self) -> Options {
        Options::new().access(match self.access {
            Who::Umask => Access::Umask,
            Who::Private => Access::Private,
            Who::Group => Access::Group,
            Who::Everyone => Access::Everyone,
        })
    }
}
