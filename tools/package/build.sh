# Run by tools/package.sh inside Debian unstable: the repository is in /src, results go to /target. Arguments: architectures. Environment: PARTS, VERSION, DATE of the changelog, TRAINING.

if [ -z "$CARGO_BUILD_JOBS" ]; then unset CARGO_BUILD_JOBS; fi
cd /src
. tools/cross_flags.sh
. tools/package/contents.sh
. tools/package/programs.sh
. tools/package/library.sh
. tools/package/wheel.sh
umask 022

wanted() { # programs, library or wheel
    case " $PARTS " in *" $1 "*) true ;; *) false ;; esac
}

# Without training, which the robot does not need, for arm64.
training() { # amd64 or arm64
    if [ "$TRAINING" = no ] || [ "$1" = arm64 ]; then echo --no-default-features; fi
}

# The packages of cargo for an architecture: the same for everything, so that no dependency is built twice.
selection() { # amd64 or arm64
    if wanted programs; then echo "$programs -p loftup-scenes"; fi
    if wanted library; then echo "-p loftup-capi"; fi
    if wanted wheel; then echo "-p loftup-python"; fi
    training "$1"
}

# Builds everything; the arguments after the architecture select packages.
build() { # amd64 or arm64, selection
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

packages() { # amd64 or arm64
    # shellcheck disable=SC2046
    build "$1" $(selection "$1")
    if wanted programs; then programs; fi
    if wanted library; then library; fi
    if wanted wheel; then wheel; fi
}

if wanted programs; then
    # The model is created with the programs of the amd64 package, if that is built.
    builder="$programs -p loftup-scenes $(training arm64)"
    for one in "$@"; do if [ "$one" = amd64 ]; then builder=$(selection amd64); fi; done
    # Each in a subshell: another architecture's flags in the environment would make cargo rebuild
    # everything.
    # shellcheck disable=SC2086
    (default_bundle $builder)
fi
for one in "$@"; do (packages "$one"); done
