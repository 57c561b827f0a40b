#!/bin/sh
# Compiles only the project's crates with coverage counters. Cargo calls it in place of rustc if
# RUSTC_WRAPPER is set to it. See run.sh.
case " $* " in
*" --crate-name loftup_"* | *" --crate-name "*fuzz_targets/*)
    exec "$@" --cfg fuzzing -Cpasses=sancov-module \
        -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
esac
exec "$@"
