#!/usr/bin/env bash
# The checks that every change must pass. `.ci/run` and .github/workflows/ci.yml call this script.
#
#   tools/check.sh [STEP]...        default: all steps, in this order
#
#   fmt        formatting, links between the documents, and import cycles
#   test       all tests
#   clippy     lints, warnings as errors
#   features   the feature combinations that the workspace build does not compile
#   docs       API documentation, warnings as errors
#   deny       licenses, sources and bans of the dependencies; skipped if cargo-deny is not installed
#   demo       `loftup demo`, and the exported graphs in ONNX Runtime (installed in a virtual
#              environment)
#   python     the wheel of the Python package, installed in a virtual environment, and its tests
#
# Needs a Rust toolchain, a C compiler, Python 3 with venv, and the package registries.
set -euo pipefail
cd "$(dirname "$0")/.."

# If rustup can neither find nor download the toolchain of rust-toolchain.toml, use its default.
if [ -z "${RUSTUP_TOOLCHAIN:-}" ] && ! cargo --version >/dev/null 2>&1; then
    RUSTUP_TOOLCHAIN=$(cd / && rustup default | cut -d ' ' -f 1)
    export RUSTUP_TOOLCHAIN
    echo "toolchain: $RUSTUP_TOOLCHAIN"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step() {
    printf '\n=== %s (%s s)\n' "$*" "$SECONDS"
    "$@"
}

component() { # rustfmt or clippy, and the cargo command that comes with it
    cargo "$2" --version >/dev/null 2>&1 || rustup component add "$1"
}

fmt() {
    component rustfmt fmt
    step cargo fmt --all --check
    step python3 tools/check_links.py
    step python3 tools/check_cycles.py
}

# The node's dependencies turn on the feature `linux` of loftup-board, and so its tests.
test_() {
    step cargo test --locked --workspace
}

clippy() {
    component clippy clippy
    step cargo clippy --workspace --all-targets -- -D warnings
}

# Feature combinations that no other step compiles. Nothing is linked.
features() {
    component clippy clippy
    # The workspace's builds have both the other way round. Run the tests of the tokenizers with
    # `cargo test --workspace --features loftup-words/tokenizers --test siglip`, which compiles most crates again.
    step cargo clippy --locked -p loftup -p loftup-words --no-default-features \
        --features loftup/tokenizers --lib --bins --test siglip -- -D warnings
    step cargo check --locked -p loftup-node --all-targets --features zenoh,v4l
    step cargo check --locked -p loftup-board
}

docs() {
    RUSTDOCFLAGS="-D warnings" step cargo doc --workspace --no-deps
}

# Without `advisories`, whose database changes from day to day and is downloaded from elsewhere: the
# workflow checks it, and so should every release.
deny() {
    if cargo deny --version >/dev/null 2>&1; then
        step cargo deny check bans licenses sources
    else
        printf '\n=== skipped: cargo deny is not installed (cargo install --locked cargo-deny)\n'
    fi
}

# The first command of a new user, and a comparison of its graphs in ONNX Runtime.
demo() {
    # The whole workspace, for the same features as in `test`, so that nothing is rebuilt.
    step cargo build --workspace --bin loftup --example with_head
    local built="${CARGO_TARGET_DIR:-target}/debug" case
    local loftup="$built/loftup"
    step "$loftup" demo --out "$work/demo"
    test -s "$work/demo/report.html"
    step python3 -m venv "$work/python"
    step "$work/python/bin/pip" install --quiet "numpy>=1.26" "onnx>=1.17" "onnxruntime>=1.20" "safetensors>=0.4"
    for case in loftup_odd.ckpt loftup_wide.safetensors; do
        "$loftup" convert --upsampler-weights "tests/data/golden/weights/$case" \
            --out "$work/$case.loftup" >/dev/null
    done
    step "$work/python/bin/python" tools/check_onnx.py --with-head "$built/examples/with_head" \
        "$loftup" "$work/demo/demo.loftup" \
        "$work"/*.ckpt.loftup "$work"/*.safetensors.loftup
    step "$work/python/bin/python" tools/check_frame.py "$loftup" "$work/demo/demo.loftup"
}

# With tools/maturin/cargo, nothing is compiled again after `test`.
python() {
    local built="${CARGO_TARGET_DIR:-target}/debug" bin="$work/python-package/bin"
    local selection="--workspace --bin loftup --lib --example with_head"
    # shellcheck disable=SC2086
    step cargo build --locked $selection
    step python3 -m venv "$work/python-package"
    step "$bin/pip" install --quiet "maturin>=1.9,<2" "numpy>=1.26" "pillow>=10" "pytest>=8"
    MATURIN_CARGO=$(command -v cargo) MATURIN_BUILD="$selection" PATH="$PWD/tools/maturin:$PATH" \
        step "$bin/maturin" build --locked --profile dev \
        --manifest-path host/python/Cargo.toml --interpreter "$bin/python" --out "$work/wheels"
    step "$bin/pip" install --quiet --no-deps "$work"/wheels/*.whl
    LOFTUP=$(realpath "$built/loftup") PYTHONDONTWRITEBYTECODE=1 \
        step "$bin/python" -m pytest -q -p no:cacheprovider host/python
}

[ $# -gt 0 ] || set -- fmt test clippy features docs deny demo python
for name in "$@"; do
    case $name in
    test) test_ ;;
    fmt | clippy | features | docs | deny | demo | python) "$name" ;;
    *)
        echo "$0: no step '$name'; the steps are fmt, test, clippy, features, docs, deny, demo, python" >&2
        exit 2
        ;;
    esac
done
printf '\n=== done (%s s)\n' "$SECONDS"
