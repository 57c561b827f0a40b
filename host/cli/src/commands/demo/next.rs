//! Suggested commands after the demo.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{model, report, scenes};
use crate::output;

/// Prints the path of the report and commands to try.
pub fn print(out: &Path, seconds: f64) -> Result<()> {
    // Under `cargo run`, the program may not be in PATH.
    let loftup = match std::env::var_os("CARGO") {
        Some(_) => "cargo run --quiet --",
        None => "loftup",
    };
    let path = |name: &str| quoted(&out.join(name).display().to_string());
    let bundle = path(model::BUNDLE);
    let photo = path(&format!("{}/val/images/000.png", scenes::FOLDER));
    output::line(format!(
        "\nReport: {} ({seconds:.0} s). Next steps:\n",
        path(report::FILE)
    ))?;
    for command in [
        format!(
            "run {bundle} --image {photo} --head {} --out {}",
            model::HEAD,
            path("classes.png")
        ),
        format!(
            "segment {bundle} --image {photo} --click 112,112 --out {}",
            path("object.png")
        ),
        format!(
            "track {bundle} --video {} --mask {} --out {}",
            path(&format!("{}/JPEGImages/480p/walk", scenes::CLIP)),
            path(&format!("{}/Annotations/480p/walk/00000.png", scenes::CLIP)),
            path("tracked")
        ),
        format!(
            "run {bundle} --image {photo} --size 448x448 --picture {}",
            path("large.png")
        ),
        format!("inspect {bundle}"),
    ] {
        output::line(format!("  {loftup} {command}"))?;
    }
    Ok(())
}

/// Quotes a path for the shell.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        path.into()
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}

/// Opens a file in the browser. Failure is only a warning.
pub fn open(path: &Path) {
    let mut command = if cfg!(target_os = "macos") {
        Command::new("open")
    } else if cfg!(windows) {
        let mut command = Command::new("cmd");
        command.args(["/C", "start", ""]);
        command
    } else {
        Command::new("xdg-open")
    };
    let opened = command.arg(path).status();
    if !opened.is_ok_and(|status| status.success()) {
        log::warn!(
            "{}: could not open a browser; open the file manually",
            path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_where_a_shell_would_split_them() {
        assert_eq!(quoted("demo/a.png"), "demo/a.png");
        assert_eq!(quoted("my demo"), "'my demo'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
