//! What Linux shows of a process in `/proc/PID/stat`.

/// The number of the parent's pid among the fields in proc(5).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) const PARENT: usize = 4;
/// The number of the time at which the process was started, in ticks after the system's start.
pub(crate) const START: usize = 22;

/// A field from the third one on. Before that is the name of the program in parentheses, which can
/// contain anything.
pub(crate) fn field(pid: u32, number: usize) -> Option<String> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let field = stat.rsplit_once(") ")?.1.split(' ').nth(number.checked_sub(3)?)?;
    Some(field.trim_end().to_string())
}
