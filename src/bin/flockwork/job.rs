//! The command to run: how it is started, why its start failed, and its exit code.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use crate::exit::{Exit, Failure, is_exhausted};
use crate::holder_text::HeldJob;

#[derive(Debug)]
pub(crate) struct Job {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    removed_variable: Option<&'static str>,
    is_shell: bool,
    has_no_input: bool,
    input: Option<File>,
    /// The files that get the standard output and the standard error.
    output: Option<[File; 2]>,
}

impl Job {
    /// A program and its arguments, run without a shell.
    pub(crate) fn new(words: &[OsString]) -> Result<Self, Failure> {
        match words.split_first() {
            Some((program, arguments)) if !program.is_empty() => Ok(Self {
                program: program.clone(),
                arguments: arguments.to_vec(),
                environment: Vec::new(),
                removed_variable: None,
                is_shell: false,
                has_no_input: false,
                input: None,
                output: None,
            }),
            _ => Err(Failure::new(Exit::CannotRun, "could not run the command: its name is empty")),
        }
    }

    /// A string that the user's shell runs, as in flock(1).
    pub(crate) fn shell(string: &OsStr) -> Self {
        let (variable, default, flag) =
            if cfg!(windows) { ("COMSPEC", "cmd.exe", "/C") } else { ("SHELL", "/bin/sh", "-c") };
        let shell = std::env::var_os(variable).filter(|shell| !shell.is_empty());
        Self {
            program: shell.unwrap_or_else(|| default.into()),
            arguments: vec![flag.into(), string.to_os_string()],
            environment: Vec::new(),
            removed_variable: None,
            is_shell: true,
            has_no_input: false,
            input: None,
            output: None,
        }
    }

    /// The same, run by this shell.
    pub(crate) fn by_shell(self, shell: impl Into<OsString>) -> Self {
        Self { program: shell.into(), ..self }
    }

    /// The same as a holder's job is described.
    pub(crate) fn as_held(&self) -> HeldJob {
        match self.arguments.last() {
            Some(string) if self.is_shell => HeldJob::Shell(string.clone()),
            _ => HeldJob::Words(self.words().cloned().collect()),
        }
    }

    pub(crate) fn with_environment(
        mut self,
        name: &'static str,
        value: impl Into<OsString>,
    ) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Removes a variable from the command's environment.
    pub(crate) fn without_environment(mut self, name: &'static str) -> Self {
        self.removed_variable = Some(name);
        self
    }

    /// The program and its arguments.
    pub(crate) fn words(&self) -> impl Iterator<Item = &OsString> {
        [&self.program].into_iter().chain(&self.arguments)
    }

    /// Checks that the program exists and that this user may run it, as far as that is known before
    /// it is run.
    #[cfg(unix)]
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.is_path() {
            return match std::fs::metadata(&self.program) {
                Ok(_) if is_executable(Path::new(&self.program)) => Ok(()),
                Ok(_) => Err(self.failed(&io::ErrorKind::PermissionDenied.into())),
                Err(error) => Err(self.failed(&error)),
            };
        }
        let path = std::env::var_os("PATH");
        // Without the variable, the system decides where a program is looked up.
        let Some(path) = path else { return Ok(()) };
        let files = || std::env::split_paths(&path).map(|directory| directory.join(&self.program));
        if files().any(|file| is_executable(&file)) {
            return Ok(());
        }
        let exists = files().any(|file| file.exists());
        let kind = if exists { io::ErrorKind::PermissionDenied } else { io::ErrorKind::NotFound };
        Err(self.failed(&kind.into()))
    }

    /// The system adds extensions to the name, so only running the program shows whether it exists.
    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "same signature as on Unix")]
    pub(crate) fn check(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// Gives the command an empty standard input.
    pub(crate) fn without_input(mut self) -> Self {
        self.has_no_input = true;
        self
    }

    /// Lets the command read this standard input.
    pub(crate) fn with_input(self, input: impl Into<File>) -> Self {
        Self { input: Some(input.into()), ..self }
    }

    /// Writes the standard output and the standard error of the command to files.
    pub(crate) fn with_output(self, files: [File; 2]) -> Self {
        Self { output: Some(files), ..self }
    }

    /// Lets the command inherit the standard output and the standard error.
    pub(crate) fn with_inherited_output(self) -> Self {
        Self { output: None, ..self }
    }

    pub(crate) fn program(&self) -> &OsStr {
        &self.program
    }

    pub(crate) fn command(&self) -> Command {
        self.prepare(&self.program, &[])
    }

    /// The command run by the shell, for a script without a `#!` line. execvp(3) does this on its
    /// own, but `posix_spawn` does not.
    fn command_by_shell(&self) -> Command {
        self.prepare(OsStr::new("/bin/sh"), &[&self.program])
    }

    fn prepare(&self, program: &OsStr, first_arguments: &[&OsStr]) -> Command {
        let mut command = Command::new(program);
        command.args(first_arguments);
        #[cfg(windows)]
        if self.is_shell {
            // `cmd` parses its command line by its own rules.
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
        self.removed_variable.iter().for_each(|name| {
            command.env_remove(name);
        });
        if self.has_no_input {
            command.stdin(std::process::Stdio::null());
        }
        if let Some(Ok(input)) = self.input.as_ref().map(File::try_clone) {
            command.stdin(input);
        }
        if let Some([Ok(out), Ok(err)]) =
            self.output.as_ref().map(|files| files.each_ref().map(File::try_clone))
        {
            command.stdout(out).stderr(err);
        }
        command
    }

    pub(crate) fn spawn(&self) -> Result<Child, Failure> {
        let spawned = match self.command().spawn() {
            Err(error) if is_exec_format_error(&error) => self.command_by_shell().spawn(),
            spawned => spawned,
        };
        spawned.map_err(|error| self.failed(&error))
    }

    /// Replaces this process by the command; returns only if that fails.
    #[cfg(unix)]
    pub(crate) fn exec(&self) -> Failure {
        use std::os::unix::process::CommandExt as _;
        let error = self.command().exec();
        let error =
            if is_exec_format_error(&error) { self.command_by_shell().exec() } else { error };
        self.failed(&error)
    }

    fn failed(&self, error: &io::Error) -> Failure {
        let name = self.program.to_string_lossy();
        let failure =
            |why: &str| Failure::new(Exit::CannotRun, format!("could not run `{name}`: {why}"));
        match error.kind() {
            io::ErrorKind::NotFound => match self.file() {
                Some(file) => match interpreter(&file) {
                    Some(interpreter) => failure(&format!(
                        "its interpreter `{interpreter}` (first line) was not found"
                    )),
                    None => failure("its dynamic loader was not found")
                        .hint("check that the program was built for this system"),
                },
                None if !self.is_path() => {
                    let failure = failure("there is no program of that name in PATH");
                    if name.contains(|letter: char| " \t\n|&;<>()$`*?'\"".contains(letter)) {
                        return failure.hint("use -c for a shell string");
                    }
                    failure
                }
                None if Path::new(&self.program).is_symlink() => {
                    failure("it is a symbolic link to a file that does not exist")
                }
                None => failure("no such file"),
            },
            io::ErrorKind::PermissionDenied => self.permission_failure(&failure),
            io::ErrorKind::NotADirectory => failure("part of its path is not a directory"),
            io::ErrorKind::ExecutableFileBusy => failure("another program has it open for writing")
                .hint("try again when it is closed"),
            io::ErrorKind::ArgumentListTooLong => {
                failure("its arguments and environment exceed the system's limit")
                    .hint("pass fewer arguments at a time, as xargs does")
            }
            io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock => failure(&error.to_string())
                .with_exit(Exit::System)
                .hint("check the limit on processes (ulimit -u)"),
            _ if is_exhausted(error) => failure(&error.to_string()).with_exit(Exit::System),
            _ => failure(&error.to_string()),
        }
    }

    fn is_path(&self) -> bool {
        self.program.as_encoded_bytes().iter().any(|byte| std::path::is_separator((*byte).into()))
    }

    /// The program's file, if it exists. A name without a separator is looked up in the PATH.
    fn file(&self) -> Option<PathBuf> {
        if self.is_path() {
            return Some(PathBuf::from(&self.program)).filter(|file| file.exists());
        }
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|directory| directory.join(&self.program))
            .find(|file| file.exists())
    }

    #[cfg(unix)]
    fn permission_failure(&self, failure: &dyn Fn(&str) -> Failure) -> Failure {
        let Some(file) = self.file() else {
            return failure("this user may not search a directory of its path");
        };
        if file.is_dir() {
            return failure("it is a directory").hint("give the command after the path");
        }
        if is_noexec(&file) {
            return failure(
                "its file system is mounted without permission to run programs (noexec)",
            );
        }
        if !is_executable(&file) {
            return failure("it is not executable for this user")
                .hint("make it executable with chmod +x");
        }
        match interpreter(&file).filter(|interpreter| !is_executable(Path::new(interpreter))) {
            Some(interpreter) => {
                failure(&format!("its interpreter `{interpreter}` (first line) is not executable"))
            }
            None => failure("permission denied by the system"),
        }
    }

    #[cfg(not(unix))]
    #[expect(clippy::unused_self, reason = "same signature as on Unix")]
    fn permission_failure(&self, failure: &dyn Fn(&str) -> Failure) -> Failure {
        failure("permission denied by the system")
    }
}

/// Whether this user may run the file.
#[cfg(unix)]
fn is_executable(file: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(file, Access::EXEC_OK).is_ok() && !file.is_dir()
}

/// Whether the file is on a file system that is mounted with `noexec`.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_noexec(file: &Path) -> bool {
    use rustix::fs::{StatVfsMountFlags, statvfs};
    statvfs(file).is_ok_and(|mounted| mounted.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// Other systems do not report it.
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
fn is_noexec(_file: &Path) -> bool {
    false
}

/// The interpreter that a script names after `#!`.
fn interpreter(file: &Path) -> Option<String> {
    let mut start = Vec::new();
    let opened = std::fs::File::open(file).ok()?;
    std::io::Read::read_to_end(&mut std::io::Read::take(opened, 256), &mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    Some(line.split([' ', '\t']).find(|word| !word.is_empty())?.to_string())
}

/// Whether the error is ENOEXEC: the file is neither a program nor a script with a `#!` line.
fn is_exec_format_error(error: &io::Error) -> bool {
    cfg!(unix) && error.raw_os_error() == Some(8)
}

/// The command's exit code, or 128 plus the number of the signal that ended it, as in a shell.
pub(crate) fn exit_of(status: ExitStatus) -> Exit {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return Exit::Other(128 + signal);
    }
    status.code().map_or(Exit::System, Exit::Other)
}
