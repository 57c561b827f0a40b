//! A build without training.

use crate::support::*;

#[test]
fn commands_that_train_say_what_the_build_lacks() {
    let dir = dir();
    let line = refused(dir.path(), &mut loftup!("train", "train.toml"));
    names(
        &line,
        &["without training", "`loftup train`", "--features train"],
    );
    let line = refused(
        dir.path(),
        &mut loftup!("demo", "--out", dir.path().join("demo")),
    );
    names(&line, &["without training", "`loftup demo`"]);
}
