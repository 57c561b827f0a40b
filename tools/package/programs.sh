# To be sourced by build.sh: the package of the programs.

programs="-p loftup-node -p loftup"

# The small model of the default configuration, with a head: the same for every architecture, and
# created once on this machine, since it would take hours in qemu. Created again when the programs
# have changed, because the weights are compiled into one of them.
default_bundle() { # cargo's selection
    build amd64 "$@"
    made_by=$(sha256sum "$built/loftup-scenes" "$built/loftup")
    if [ "$(cat /target/share/made-by 2>/dev/null)" = "$made_by" ]; then return; fi
    rm -rf /target/share
    mkdir -p /target/share
    "$built/loftup-scenes" --out /target/share/scenes --train 60 --val 10
    "$built/loftup" convert --builtin=scenes --out /target/share/plain.loftup
    "$built/loftup" head classes /target/share/plain.loftup --data /target/share/scenes \
        --out /target/share/default.loftup
    rm -r /target/share/plain.loftup /target/share/scenes
    echo "$made_by" >/target/share/made-by
}

# The package loftup, of what build() made.
programs() {
    stage=/target/deb/$arch
    rm -rf "$stage"
    doc=$stage/usr/share/doc/loftup
    mkdir -p "$stage/DEBIAN" "$stage/usr/bin" "$stage/usr/share/loftup" "$doc" "$stage/etc/loftup" \
        "$stage/usr/lib/systemd/system" "$stage/usr/share/man/man1" \
        "$stage/usr/share/bash-completion/completions" "$stage/usr/share/zsh/vendor-completions" \
        "$stage/usr/share/fish/vendor_completions.d"
    for program in loftup loftup-node; do
        "$cross_cpu-linux-gnu-strip" --strip-unneeded -o "$stage/usr/bin/$program" "$built/$program"
        chmod 755 "$stage/usr/bin/$program"
    done
    cp -r /target/share/default.loftup "$stage/usr/share/loftup/"
    install -m 755 tools/gpu_checks.sh "$stage/usr/share/loftup/"
    cp tools/package/node.toml "$stage/etc/loftup/node.toml"
    cp tools/package/loftup-node.service "$stage/usr/lib/systemd/system/"

    # Man pages and completions.
    generated=/target/deb/generated
    rm -rf "$generated"
    mkdir -p "$generated"
    "$stage/usr/bin/loftup" generate "$generated"
    "$stage/usr/bin/loftup-node" --generate "$generated"
    cp "$generated"/*.1 "$stage/usr/share/man/man1/"
    gzip -9n "$stage"/usr/share/man/man1/*
    for program in loftup loftup-node; do
        cp "$generated/$program.bash" "$stage/usr/share/bash-completion/completions/$program"
        cp "$generated/_$program" "$stage/usr/share/zsh/vendor-completions/"
        cp "$generated/$program.fish" "$stage/usr/share/fish/vendor_completions.d/"
    done

    documents "$doc"
    cp docs/node.md docs/jetson.md docs/security.md docs/engines.md CHANGELOG.md "$doc/"
    # shellcheck disable=SC2046,SC2086
    third_party --target "$target" $programs $(training "$arch") >"$doc/third-party"
    gzip -9n "$doc"/*.md "$doc/third-party"

    echo /etc/loftup/node.toml >"$stage/DEBIAN/conffiles"
    for script in postinst prerm postrm; do
        install -m 755 "tools/package/$script" "$stage/DEBIAN/$script"
    done
    glibc=$(glibc_of "$stage"/usr/bin/*)
    deb loftup "$stage" <<CONTROL
Depends: libc6 (>= $glibc), libgcc-s1, passwd
Recommends: ffmpeg, gstreamer1.0-tools
Section: science
Description: dense features of vision foundation models on a robot
 loftup converts checkpoints of a vision backbone and the LoftUp upsampler to a
 bundle, and computes a feature vector for every pixel of an image. loftup-node
 is the service that runs a bundle on a camera stream with deadlines, on TensorRT
 if it is available and on the CPU otherwise.
CONTROL
    ls -l "$stage/usr/bin"
}
