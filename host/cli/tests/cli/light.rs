//! A build without training.

use crate::support::*;

#[test]
fn commands_that_train_say_what_the_build_lacks() {
    let dir = dir();
    let line = refused(dir.path(), &mut loftup!("train", "train.toml"));
    names(
        &line,
        &[
            "not available in this build",
            "`loftup train`",
            "--features train",
        ],
    );
    let line = refused(
        dir.path(),
        &mut loftup!("demo", "--out", dir.path().join("demo")),
    );
    names(&line, &["not available in this build", "`loftup demo`"]);
}
