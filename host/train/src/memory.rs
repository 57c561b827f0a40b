//! glibc allocator settings for training.

/// Environment variables that make glibc's `malloc` allocate large buffers from the heap and keep freed
/// memory. By default, it maps every large buffer again, and page faults take a third of the CPU time of a
/// step.
///
/// mimalloc is slower and uses more memory (`examples/training_speed.rs`, CPU time and peak resident
/// memory):
///
/// | | 64 channels, batch of 1, 8 steps | 384 channels, batch of 2, 2 steps |
/// |---|---|---|
/// | these settings | 4.3 s, 154 MB | 21.9 s, 1191 MB |
/// | mimalloc 3 | 4.8 s, 193 MB | 27.4 s, 1205 MB |
/// | glibc defaults | 6.1 s, 147 MB | |
///
/// `mallopt` would need unsafe code.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SETTINGS: [(&str, &str); 3] = [
    ("MALLOC_MMAP_MAX_", "0"),
    ("MALLOC_TRIM_THRESHOLD_", "8000000000"),
    ("MALLOC_TOP_PAD_", "100000000"),
];

/// Re-executes the program with the allocator settings in its environment, because glibc reads them only
/// at startup. Does nothing if one of them is already set, or on other systems. Must be called before
/// any other work.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_buffers() {
    use std::{env, os::unix::process::CommandExt, process::Command};

    if SETTINGS.iter().any(|(name, _)| env::var_os(name).is_some()) {
        return;
    }
    let mut arguments = env::args_os();
    let (Ok(program), Some(name)) = (env::current_exe(), arguments.next()) else {
        return;
    };
    // Returns only if it fails.
    let e = Command::new(program)
        .arg0(name)
        .args(arguments)
        .envs(SETTINGS)
        .exec();
    log::debug!("allocator settings unchanged: {e}");
}

/// Does nothing on this system.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_buffers() {}
