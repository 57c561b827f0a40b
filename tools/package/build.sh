# Run by tools/package.sh inside Debian unstable: the repository is in /src, results go to /target. Arguments: architectures. Environment: VERSION, DATE of the changelog, TRAINING.

if [ -z "$CARGO_BUILD_JOBS" ]; then unset CARGO_BUILD_JOBS; fi
cd /src
. tools/cross_flags.sh
umask 022

# Builds the programs; the arguments after the architecture select packages.
programs() { # amd64 or arm64, selection
    arch=$1
    shift
    cross_flags "$arch"
    target=$cross_cpu-unknown-linux-gnu
    # arm64 shares its directory with tools/cross_aarch64.sh.
    export CARGO_TARGET_DIR=/target
    [ "$arch" = arm64 ] || CARGO_TARGET_DIR=/target/$arch
    cargo build --locked --profile dist --target "$target" "$@"
    built=$CARGO_TARGET_DIR/$target/dist
}

# The packages for an architecture: the same for the programs and for creating the model, so that no
# dependency is built twice.
selection() { # amd64 or arm64
    echo "-p loftup-node -p loftup -p loftup-scenes"
    if [ "$TRAINING" = no ] || [ "$1" = arm64 ]; then echo --no-default-features; fi
}

# The small model of the default configuration, with a head: the same for every architecture, and
# created once on this machine, since it would take hours in qemu. Created again when the programs
# have changed, because the weights are compiled into one of them.
default_bundle() { # cargo's selection
    programs amd64 "$@"
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

# Names, versions and licenses of all dependencies of the programs.
third_party() { # cargo's selection
    cargo tree --locked --edges normal,no-proc-macro --prefix none --format '{p}|{l}' "$@" |
        sed 's/ (\*)$//' | sort -u | while IFS='|' read -r package license; do
        case $package in *"(/"*) continue ;; esac
        directory=$(echo "${package%% (*}" | sed 's/ v/-/')
        printf '\n==== %s: %s\n' "$directory" "$license"
        find /root/.cargo/registry/src/*/"$directory" -maxdepth 1 -type f \
            \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' -o -iname 'copyright*' \) \
            -print | sort | while read -r text; do
            printf -- '---- %s\n' "${text##*/}"
            cat "$text"
        done
    done
}

package() { # amd64 or arm64
    # shellcheck disable=SC2046
    set -- "$1" $(selection "$1")
    programs "$@"
    shift

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

    cp tools/package/copyright "$doc/"
    cp docs/node.md docs/jetson.md docs/security.md docs/engines.md CHANGELOG.md "$doc/"
    third_party --target "$target" "$@" >"$doc/third-party"
    {
        printf 'loftup (%s) unstable; urgency=medium\n\n' "$VERSION"
        printf '  * See CHANGELOG.md.gz.\n\n -- The loftup-edge developers <%s>  %s\n' \
            "loftup@localhost" "$DATE"
    } >"$doc/changelog"
    gzip -9n "$doc"/*.md "$doc/third-party" "$doc/changelog"

    # The newest version of glibc that the programs require.
    glibc=$("$cross_cpu-linux-gnu-objdump" -T "$stage"/usr/bin/* |
        sed -n 's/.*GLIBC_\([0-9.]*\)).*/\1/p' | sort -uV | tail -n 1)
    if [ "$(printf '%s\n2.31\n' "$glibc" | sort -V | tail -n 1)" != 2.31 ]; then
        echo "the programs need glibc $glibc: they would not run on JetPack 5" >&2
        exit 1
    fi
    cat >"$stage/DEBIAN/control" <<CONTROL
Package: loftup
Version: $VERSION
Architecture: $arch
Maintainer: The loftup-edge developers <loftup@localhost>
Installed-Size: $(du -sk --exclude=DEBIAN "$stage" | cut -f1)
Depends: libc6 (>= $glibc), libgcc-s1, passwd
Recommends: ffmpeg, gstreamer1.0-tools
Section: science
Priority: optional
Description: dense features of vision foundation models on a robot
 loftup converts checkpoints of a vision backbone and the LoftUp upsampler to a
 bundle, and computes a feature vector for every pixel of an image. loftup-node
 is the service that runs a bundle on a camera stream with deadlines, on TensorRT
 if it is available and on the CPU otherwise.
CONTROL
    echo /etc/loftup/node.toml >"$stage/DEBIAN/conffiles"
    for script in postinst prerm postrm; do
        install -m 755 "tools/package/$script" "$stage/DEBIAN/$script"
    done
    (cd "$stage" && find . -path ./DEBIAN -prune -o -path ./etc -prune -o -type f -printf '%P\0' |
        sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    # Not zstd, the default here, which older releases do not support.
    dpkg-deb --root-owner-group -Zxz --build "$stage" "/target/loftup_${VERSION}_$arch.deb"
    ls -l "$stage/usr/bin"
}

# If amd64 is included, the model is created with the programs of its package.
builder=arm64
for one in "$@"; do if [ "$one" = amd64 ]; then builder=amd64; fi; done
# Each in a subshell: another architecture's flags in the environment would make cargo rebuild
# everything.
# shellcheck disable=SC2046
(default_bundle $(selection "$builder"))
for one in "$@"; do (package "$one"); done
