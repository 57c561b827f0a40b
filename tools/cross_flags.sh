# To be sourced inside Debian unstable: compilers for a Debian architecture that link against the old
# C library of debian_sysroot.

cross_flags() { # amd64 or arm64
    case $1 in
    amd64) cross_cpu=x86_64 ;;
    arm64) cross_cpu=aarch64 ;;
    *)
        echo "no compiler for $1" >&2
        return 1
        ;;
    esac
    cross_sysroot=/sysroot/$1
    # -B, because the compiler would otherwise use its own, newer C library.
    cross_gcc="--sysroot=$cross_sysroot"
    for cross_lib in usr/lib lib; do
        cross_gcc="$cross_gcc -B$cross_sysroot/$cross_lib/$cross_cpu-linux-gnu"
    done
    cross_upper=$(echo "$cross_cpu" | tr a-z A-Z)
    cross_rust=
    for cross_word in $cross_gcc; do cross_rust="$cross_rust -Clink-arg=$cross_word"; done
    export "CARGO_TARGET_${cross_upper}_UNKNOWN_LINUX_GNU_LINKER=$cross_cpu-linux-gnu-gcc"
    export "CARGO_TARGET_${cross_upper}_UNKNOWN_LINUX_GNU_RUSTFLAGS=$cross_rust"
    export "CC_${cross_cpu}_unknown_linux_gnu=$cross_cpu-linux-gnu-gcc"
    export "CFLAGS_${cross_cpu}_unknown_linux_gnu=$cross_gcc -isystem $cross_sysroot/usr/include -isystem $cross_sysroot/usr/include/$cross_cpu-linux-gnu"
    # Code compiled by tests runs here, with this system's libraries.
    export "CXX=$cross_cpu-linux-gnu-g++"
}
