#!/bin/sh
# Fuzzes one target on the stable toolchain:
#
#   tests/fuzz/run.sh TARGET [LIBFUZZER OPTION]...      default: one minute
#
# New inputs are saved in tests/fuzz/corpus/TARGET, failing ones in tests/fuzz/artifacts/TARGET.
set -eu
cd "$(dirname "$0")"
target=${1:?"usage: $0 TARGET [OPTION]...; the targets are $(ls seeds | tr '\n' ' ')"}
shift
# Many small files are written: use memory if possible.
[ -d /dev/shm ] && export TMPDIR="${TMPDIR:-/dev/shm}"
RUSTC_WRAPPER=$PWD/instrument.sh cargo build --bin "$target"
mkdir -p "corpus/$target" "artifacts/$target"
exec "${CARGO_TARGET_DIR:-target}/debug/$target" "corpus/$target" "seeds/$target" \
    -artifact_prefix="artifacts/$target/" -max_len=4096 -rss_limit_mb=2048 -timeout=10 \
    -max_total_time=60 "$@"
