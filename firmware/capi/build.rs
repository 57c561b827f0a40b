//! The name by which programs find the library at run time: it changes with the ABI version.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libloftup.so.1");
}
