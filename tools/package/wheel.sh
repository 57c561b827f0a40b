# To be sourced by build.sh: the wheel for Python.

# For every CPython from 3.10 on, of what build() made.
wheel() {
    dist=/target/deb/$arch-wheel
    rm -rf "$dist"
    mkdir -p "$dist"
    # shellcheck disable=SC2046,SC2116
    MATURIN_CARGO=$(command -v cargo) \
        MATURIN_BUILD="--profile dist --target $target $(echo $(selection "$arch"))" \
        PATH=/src/tools/maturin:$PATH \
        maturin build --locked --profile dist --target "$target" --strip \
        --manifest-path host/python/Cargo.toml --out "$dist"
    third_party --target "$target" -p loftup-python >"$dist/third-party"
    python3 tools/package/wheel_licenses.py "$dist"/*.whl LICENSE-MIT LICENSE-APACHE "$dist/third-party"
    mv "$dist"/*.whl /target/
}
