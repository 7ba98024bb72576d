//! Tells the command which commit it is built from: `taut --version`.
//!
//! The same sources give the same program: nothing here depends on the time or on the machine. Sources without their
//! history (an archive, a container's layer) can be told by `TAUT_COMMIT`, and have no commit otherwise.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=TAUT_COMMIT");
    let given = env::var("TAUT_COMMIT").ok().filter(|commit| !commit.trim().is_empty());
    let commit = given.map(|commit| commit.trim().to_owned()).or_else(from_git);
    let text = commit.map_or_else(String::new, |commit| format!(" ({commit})"));
    println!("cargo::rustc-env=TAUT_COMMIT={text}");
}

/// The commit and its day.
fn from_git() -> Option<String> {
    // Sources inside somebody else's repository are not that repository's.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    // What names the commit: these change with it. A file that is not there would have this run each time.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["show", "--no-patch", "--abbrev=12", "--format=%h %cs", "HEAD"])
}

/// What git prints; nothing if there is no git, no repository or no such thing. Build scripts run in the folder of their crate.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
