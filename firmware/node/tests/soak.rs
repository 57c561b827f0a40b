//! A short soak test. `LOFTUP_SOAK_SECONDS` sets its duration; the default is 20.

mod common;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use loftup_node::{
    config::Config,
    inject::Plan,
    soak::{Options, run},
};

/// Memory is measured for the whole process, so only one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn config(folder: &std::path::Path) -> Config {
    common::bundle(folder);
    let settings = r#"
[pipeline]
deadline_ms = 250
max_age_ms = 1500

[degrade]
miss_limit = 4
recover_after = 30

[[degrade.step]]
size = [28, 28]

[[degrade.step]]
regions_only = true
rate_hz = 5.0

[watchdog]
hang_ms = 700
"#;
    let queries = common::queries([8, 8, 64, 40]) + common::DENSE_QUERIES;
    let text = common::config_text(&(settings.to_owned() + &queries));
    let text = text.replace("threads = 1", common::DEPTH);
    Config::parse(&text, &folder.join("node.toml")).unwrap()
}

#[test]
fn the_soak_test_passes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = std::env::var("LOFTUP_SOAK_SECONDS").ok();
    let seconds = seconds.map_or(20, |text| {
        text.parse().expect("LOFTUP_SOAK_SECONDS is a number")
    });
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(Duration::from_secs(seconds), 1);
    assert!(!options.plan.is_empty());
    let outcome = run(&config(folder.path()), &options).unwrap();
    println!("{outcome:#?}");
    assert_eq!(outcome.failures(), Vec::<String>::new());
    let injected = outcome.rows.iter().filter(|row| row.injected > 0).count();
    assert!(
        injected >= 6,
        "only {injected} kinds of faults were injected"
    );
    let (fed, visible) = outcome.tracked;
    assert!(fed > 30 && visible > 10, "{:?}", outcome.tracked);
    assert!(outcome.commands.0 > 20, "{:?}", outcome.commands);
    assert!(outcome.word_sets > 1, "words were not replaced");
    assert!(
        outcome.received > 100,
        "the peer received {} frames",
        outcome.received
    );
}

#[test]
fn a_leak_is_detected() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(Duration::from_secs(10), 1);
    options.plan = Plan::default();
    // At 5 outputs per second this is 5 MiB per second.
    options.leak = 1 << 20;
    let outcome = run(&config(folder.path()), &options).unwrap();
    let failures = outcome.failures();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains("memory grew"), "{failures:?}");
}
