//! What to do after the demo.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{model, report, scenes};
use crate::output;

/// Says where the report is, and three commands that work.
pub fn say(out: &Path, seconds: f64) -> Result<()> {
    // Started through cargo: the program itself need not be on the search path.
    let loftup = match std::env::var_os("CARGO") {
        Some(_) => "cargo run --quiet --",
        None => "loftup",
    };
    let path = |name: &str| quoted(&out.join(name).display().to_string());
    let bundle = path(model::BUNDLE);
    let photo = path(&format!("{}/val/images/000.png", scenes::FOLDER));
    output::line(format!(
        "\n{} is the report ({seconds:.0} s). Next:\n",
        path(report::FILE)
    ))?;
    for command in [
        format!(
            "run {bundle} --image {photo} --head {} --out {}",
            model::HEAD,
            path("classes.png")
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

/// As a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        path.into()
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}

/// Opens a file in the browser. The demo is done, whether that works or not.
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
            "{}: no browser could be opened; open the file yourself",
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
