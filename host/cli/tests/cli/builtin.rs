//! The built-in models.

use std::{fs, os::unix::fs::MetadataExt};

use crate::support::*;

#[test]
fn the_built_in_model_is_converted_once() {
    let (dir, cache) = (dir(), dir());
    let image = png(dir.path());
    let run = |model: &str, out: &str| {
        let mut command = loftup!(
            "run",
            model,
            "--image",
            &image,
            "--out",
            dir.path().join(out)
        );
        command.env("XDG_CACHE_HOME", cache.path());
        command
    };
    let models = cache.path().join("loftup-edge/builtin");
    for (model, dim, other) in [("--builtin", 112, 1), ("--builtin=scenes", 64, 2)] {
        done(&mut run(model, "first.npy"));
        let bundles: Vec<_> = fs::read_dir(&models).unwrap().map(Result::unwrap).collect();
        assert_eq!(bundles.len(), other, "{bundles:?}");
        for bundle in &bundles {
            let bundle = loftup_bundle::Bundle::open(&bundle.path()).unwrap();
            let license = bundle.manifest().provenance.license.as_deref();
            assert!(
                license.is_some_and(|l| l.contains("Apache-2.0")),
                "{license:?}"
            );
        }
        let inodes = || -> Vec<u64> {
            let entries = fs::read_dir(&models).unwrap();
            let mut inodes: Vec<_> = entries
                .map(|e| e.unwrap().metadata().unwrap().ino())
                .collect();
            inodes.sort_unstable();
            inodes
        };
        let before = inodes();
        done(&mut run(model, "second.npy"));
        assert_eq!(inodes(), before, "{model} was converted again");
        let read = |name: &str| loftup_runtime::npy::read(&dir.path().join(name)).unwrap();
        let (first, second) = (read("first.npy"), read("second.npy"));
        assert_eq!(first.shape[1], dim);
        assert!(first.data == second.data, "{model}");
    }
    let line = refused(
        dir.path(),
        run("--builtin", "third.npy")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("HOME"),
    );
    names(
        &line,
        &["XDG_CACHE_HOME", "HOME", "loftup convert --builtin"],
    );
}
