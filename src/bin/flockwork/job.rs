//! The command that is run: how it is named, started and what its end means.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{Child, Command, ExitStatus};

use crate::exit::{Exit, Failure, is_exhausted};

#[derive(Debug)]
pub(crate) struct Job {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    hidden: Option<&'static str>,
    is_shell: bool,
    has_no_input: bool,
}

impl Job {
    /// The words are passed on as they are.
    pub(crate) fn new(words: &[OsString]) -> Result<Self, Failure> {
        match words.split_first() {
            Some((program, arguments)) if !program.is_empty() => Ok(Self {
                program: program.clone(),
                arguments: arguments.to_vec(),
                environment: Vec::new(),
                hidden: None,
                is_shell: false,
                has_no_input: false,
            }),
            _ => Err(Failure::new(Exit::CannotRun, "cannot run the command: its name is empty")),
        }
    }

    /// A string for the user's shell, as flock(1) has it.
    pub(crate) fn shell(string: &OsStr) -> Self {
        let (variable, standard, flag) =
            if cfg!(windows) { ("COMSPEC", "cmd.exe", "/C") } else { ("SHELL", "/bin/sh", "-c") };
        let shell = std::env::var_os(variable).filter(|shell| !shell.is_empty());
        Self {
            program: shell.unwrap_or_else(|| standard.into()),
            arguments: vec![flag.into(), string.to_os_string()],
            environment: Vec::new(),
            hidden: None,
            is_shell: true,
            has_no_input: false,
        }
    }

    pub(crate) fn with_environment(mut self, name: &'static str, value: String) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// This variable is not for it.
    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.hidden = Some(name);
        self
    }

    /// Its standard input is empty.
    pub(crate) fn without_input(mut self) -> Self {
        self.has_no_input = true;
        self
    }

    pub(crate) fn program(&self) -> &OsStr {
        &self.program
    }

    pub(crate) fn command(&self) -> Command {
        self.prepare(&self.program, &[])
    }

    /// execvp(3) runs a script that does not say by what, by the shell; `posix_spawn` does not.
    fn by_the_shell(&self) -> Command {
        self.prepare(OsStr::new("/bin/sh"), &[&self.program])
    }

    fn prepare(&self, program: &OsStr, before: &[&OsStr]) -> Command {
        let mut command = Command::new(program);
        command.args(before);
        #[cfg(windows)]
        if self.is_shell {
            // `cmd` reads its line by rules of its own.
            use std::os::windows::process::CommandExt as _;
            self.arguments.iter().for_each(|argument| {
                command.raw_arg(argument);
            });
        } else {
            command.args(&self.arguments);
        }
        #[cfg(not(windows))]
        {
            let _ = self.is_shell;
            command.args(&self.arguments);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.hidden.iter().for_each(|name| {
            command.env_remove(name);
        });
        if self.has_no_input {
            command.stdin(std::process::Stdio::null());
        }
        command
    }

    pub(crate) fn spawn(&self) -> Result<Child, Failure> {
        let spawned = match self.command().spawn() {
            Err(error) if is_without_interpreter(&error) => self.by_the_shell().spawn(),
            spawned => spawned,
        };
        spawned.map_err(|error| self.failed(&error))
    }

    /// Takes this process's place; returns only if that fails.
    #[cfg(unix)]
    pub(crate) fn exec(&self) -> Failure {
        use std::os::unix::process::CommandExt as _;
        let error = self.command().exec();
        let error = if is_without_interpreter(&error) { self.by_the_shell().exec() } else { error };
        self.failed(&error)
    }

    fn failed(&self, error: &io::Error) -> Failure {
        let name = self.program.to_string_lossy();
        let is_path = name.contains(std::path::MAIN_SEPARATOR);
        let (exit, why) = match error.kind() {
            io::ErrorKind::NotFound if is_path => (
                Exit::CannotRun,
                "there is no such file, or not what its first line wants to be run by".into(),
            ),
            io::ErrorKind::NotFound => {
                (Exit::CannotRun, "no program of that name is in the PATH".into())
            }
            io::ErrorKind::PermissionDenied => {
                (Exit::CannotRun, "it is not executable for this user (chmod +x)".into())
            }
            io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock => {
                (Exit::System, format!("{error}; there may be too many processes (ulimit -u)"))
            }
            _ if is_exhausted(error) => (Exit::System, error.to_string()),
            _ => (Exit::CannotRun, error.to_string()),
        };
        Failure::new(exit, format!("cannot run `{name}`: {why}"))
    }
}

/// ENOEXEC.
fn is_without_interpreter(error: &io::Error) -> bool {
    cfg!(unix) && error.raw_os_error() == Some(8)
}

/// The command's own code; as a shell says it, if a signal ended it.
pub(crate) fn exit_of(status: ExitStatus) -> Exit {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return Exit::Other(128 + signal);
    }
    status.code().map_or(Exit::System, Exit::Other)
}
