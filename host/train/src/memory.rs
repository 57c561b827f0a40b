//! The C library's allocator, told what a training needs of it.

/// What the environment says to glibc's `malloc`: large buffers come from the heap, which is not
/// given back to the kernel. By default each buffer of some megabytes is mapped anew, and every step
/// pays for its pages: a sixth of the time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SETTINGS: [(&str, &str); 3] = [
    ("MALLOC_MMAP_MAX_", "0"),
    ("MALLOC_TRIM_THRESHOLD_", "8000000000"),
    ("MALLOC_TOP_PAD_", "100000000"),
];

/// Starts this program anew, in the same process and with the same arguments, with settings of
/// glibc's allocator in the environment: it reads them only as a program starts. Does nothing where
/// one of them is set already, or on other systems. To be called before anything else is done.
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
    // Comes back only where it fails.
    let e = Command::new(program)
        .arg0(name)
        .args(arguments)
        .envs(SETTINGS)
        .exec();
    log::debug!("the allocator keeps its settings: {e}");
}

/// Does nothing: this system's allocator has no settings.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_buffers() {}
