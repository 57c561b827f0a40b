# To be sourced by build.sh: the packages of the library for C and C++.

# libloftup1 and libloftup-dev, of what build() made.
library() {
    stage=/target/deb/$arch-library
    multiarch=$cross_cpu-linux-gnu
    rm -rf "$stage"
    mkdir -p "$stage"
    strip=$cross_cpu-linux-gnu-strip
    "$strip" --strip-unneeded -o "$stage/libloftup.so" "$built/libloftup.so"
    static_library "$stage/libloftup.a"
    "$strip" --strip-debug "$stage/libloftup.a"
    cmake -S firmware/capi -B "$stage/build" -DCMAKE_INSTALL_PREFIX=/usr \
        -DCMAKE_INSTALL_LIBDIR="lib/$multiarch" \
        -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR="$cross_cpu" \
        -DCMAKE_C_COMPILER="$multiarch-gcc" -DCMAKE_C_FLAGS="$cross_gcc" \
        -DLOFTUP_LIBRARY="$stage/libloftup.so" -DLOFTUP_STATIC_LIBRARY="$stage/libloftup.a" \
        >"$stage/cmake.log"
    dev=$stage/libloftup-dev
    DESTDIR=$dev cmake --install "$stage/build" >>"$stage/cmake.log"

    # The library under the names by which programs find it.
    soname=$("$cross_cpu-linux-gnu-objdump" -p "$stage/libloftup.so" | sed -n 's/^ *SONAME *//p')
    abi=${soname#libloftup.so.}
    name=libloftup$abi
    runtime=$stage/$name
    mkdir -p "$runtime/DEBIAN" "$runtime/usr/lib/$multiarch" "$dev/DEBIAN"
    mv "$dev/usr/lib/$multiarch"/libloftup.so.* "$runtime/usr/lib/$multiarch/"
    chmod 644 "$runtime/usr/lib/$multiarch/libloftup.so.$VERSION"
    documents "$runtime/usr/share/doc/$name"
    # For both architectures: with Multi-Arch, they share the file.
    third_party --target x86_64-unknown-linux-gnu --target aarch64-unknown-linux-gnu -p loftup-capi \
        >"$runtime/usr/share/doc/$name/third-party"
    gzip -9n "$runtime/usr/share/doc/$name/third-party"
    echo "libloftup $abi $name (>= $VERSION)" >"$runtime/DEBIAN/shlibs"
    echo "activate-noawait ldconfig" >"$runtime/DEBIAN/triggers"
    glibc=$(glibc_of "$stage/libloftup.so")
    deb "$name" "$runtime" <<CONTROL
Source: loftup
Depends: libc6 (>= $glibc), libgcc-s1
Section: libs
Multi-Arch: same
Description: dense features of vision foundation models, shared library
 libloftup runs bundles of loftup in programs in C and C++: features, regions,
 points, class and depth maps of an image, tracking and clicks, on TensorRT if it
 is available and on the CPU otherwise.
CONTROL

    doc=$dev/usr/share/doc/libloftup-dev
    documents "$doc"
    mkdir "$doc/examples"
    cp firmware/capi/examples/*.c firmware/capi/examples/*.cpp firmware/capi/examples/*.h "$doc/examples/"
    gzip -9nc docs/c.md >"$doc/c.md.gz"
    # The static library contains the same crates.
    ln -s "../$name/third-party.gz" "$doc/third-party.gz"
    deb libloftup-dev "$dev" <<CONTROL
Source: loftup
Depends: $name (= $VERSION), libc6-dev
Suggests: cmake, pkg-config
Section: libdevel
Multi-Arch: same
Description: dense features of vision foundation models, development files
 Headers for C99 and C++17, the static library, a CMake package and a pkg-config
 file of libloftup, which runs bundles of loftup.
CONTROL
    ls -l "$runtime/usr/lib/$multiarch" "$dev/usr/lib/$multiarch"
}

# `cargo rustc --crate-type staticlib` selects features for one package, and could compile its dependencies again.
# Procedural macros of dependencies are in the directory of this machine.
static_library() { # file
    echo 'pub use loftup::*;' >"$stage/static.rs"
    rustc --edition 2024 --crate-name loftup_static --crate-type staticlib --target "$target" -C opt-level=3 \
        -L "$built/deps" -L "$CARGO_TARGET_DIR/dist/deps" --extern "loftup=$built/libloftup.rlib" -o "$1" "$stage/static.rs"
}
