//! Rules that no compiler checks: layers, the form of the tests, the documents, and their language.

mod documents;
mod layers;
mod prose;
mod test_files;

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the files below a directory of the repository with one of these extensions, in order.
fn files_below(directory: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| extensions.iter().any(|known| e == *known)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Returns the directories with Rust files. The published package has no `benches`, which are a
/// separate package.
fn rust_directories() -> Vec<&'static str> {
    let is_published = root().join("Cargo.toml.orig").exists();
    ["src", "tests", "examples"].into_iter().chain((!is_published).then_some("benches")).collect()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap().replace("\r\n", "\n")
}

/// Returns the path within the repository, with slashes.
fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/")
}

/// Returns a line as compilers name it. `index` counts from zero.
fn place(path: &Path, index: usize) -> String {
    format!("{}:{}", name(path), index + 1)
}

/// Fails with all findings of a check in one message.
#[track_caller]
fn assert_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule} ({} findings):\n{}", findings.len(), findings.join("\n"));
}

/// Returns a source file without its comments and its own tests, which may name any module.
fn code(path: &Path) -> String {
    // The macro of the time limit is declared before the modules. It is not the beginning of the
    // tests.
    let text = text(path).replace("#[cfg(test)]\n#[macro_use]\n", "");
    let code = text.split("#[cfg(test)]").next().unwrap().split("#[cfg(all(test").next().unwrap();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.map(|line| line.split(" // ").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Returns the files of `src`, each with its path within that directory.
fn source_files() -> Vec<(String, PathBuf)> {
    let files = files_below("src", &["rs"]).into_iter();
    files.map(|path| (name(&path)["src/".len()..].to_string(), path)).collect()
}
