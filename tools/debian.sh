# To be sourced: compilers of Debian unstable in a directory, which is created once with debootstrap in
# $LOFTUP_DEBIAN_CACHE, default ~/.cache/loftup/debian. Needs Debian (or another debootstrap), root, and
# about 4 GB in total.
#
#   debian_sid PACKAGE...          the directory "$sid" with these packages
#   debian_sysroot ARCHITECTURE    in it, /sysroot/ARCHITECTURE to link against (glibc 2.31)
#   debian_clean SUITE ARCHITECTURE
#                                  the directory "$work" with a new system, which the caller removes
#   debian_enter DIRECTORY [-b FROM TO]... [-w FROM TO]... COMMAND...
#                                  runs a command inside, with FROM mounted read-only (-b) or
#                                  writable (-w) at TO, running aarch64 programs with qemu
#
# Every command has its own mount and process namespaces: nothing stays mounted, and the machine's
# settings are not changed.

debian=${LOFTUP_DEBIAN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/loftup/debian}
sid=$debian/sid

debian_fail() {
    echo "$0: $*" >&2
    exit 1
}

# DIRECTORY SUITE [ARCHITECTURE]: a minimal system, unless it exists.
debian_bootstrap() {
    if [ -e "$1/etc/loftup-complete" ]; then return; fi
    [ "$(id -u)" = 0 ] || debian_fail "$1 does not exist yet: run this script as root to create it"
    if ! command -v debootstrap >/dev/null; then
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends debootstrap
    fi
    echo "creating $1"
    rm -rf "$1"
    mkdir -p "$(dirname "$1")"
    if [ "${3:-}" = arm64 ]; then
        debian_sid qemu-user
        debootstrap --variant=minbase --arch=arm64 --foreign "$2" "$1" >"$1.log" 2>&1 &&
            # As in such a container, debootstrap does not create devices, which exist already.
            debian_enter "$1" env container=lxc /debootstrap/debootstrap --second-stage \
                >>"$1.log" 2>&1
    else
        debootstrap --variant=minbase "$2" "$1" >"$1.log" 2>&1
    fi || { tail -n 5 "$1.log" >&2; exit 1; }
    # A mirror may be a few days behind.
    echo 'Acquire::Check-Valid-Until "false";' >"$1/etc/apt/apt.conf.d/99stale"
    touch "$1/etc/loftup-complete"
}

# Network configuration of this machine for a chroot.
debian_network() {
    cp -L /etc/resolv.conf "$1/etc/resolv.conf"
    if [ -r /etc/ssl/certs/ca-certificates.crt ]; then
        mkdir -p "$1/etc/ssl/certs"
        cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"
    fi
}

debian_sid() {
    debian_bootstrap "$sid" sid
    debian_missing=
    for debian_package in "$@"; do
        chroot "$sid" dpkg-query -W -f '${db:Status-Status}\n' "$debian_package" 2>/dev/null |
            grep -qx installed || debian_missing="$debian_missing $debian_package"
    done
    debian_network "$sid"
    [ -n "$debian_missing" ] || return 0
    [ "$(id -u)" = 0 ] || debian_fail "$sid does not have$debian_missing: run this script as root"
    echo "installing$debian_missing in $sid"
    # shellcheck disable=SC2016
    chroot "$sid" env DEBIAN_FRONTEND=noninteractive sh -eu -c '
dpkg --add-architecture arm64
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@"' sh $debian_missing >>"$sid.log" 2>&1 ||
        { tail -n 5 "$sid.log" >&2; exit 1; }
    debian_network "$sid"
}

# The C library of Debian 11, glibc 2.31, as in Ubuntu 20.04 and JetPack 5: programs linked against it
# run there and on later systems.
debian_sysroot() {
    if [ -e "$sid/sysroot/$1/complete" ]; then return; fi
    echo "creating $sid/sysroot/$1"
    rm -rf "${sid:?}/sysroot/$1" "$sid/sysroot/apt"
    mkdir -p "$sid/sysroot/$1" "$sid/sysroot/apt"
    cat >"$sid/sysroot/apt/get" <<'SCRIPT'
set -eu
cd /sysroot/apt
mkdir -p lists/partial cache/archives/partial
echo "deb http://deb.debian.org/debian bullseye main" >sources
apt() {
    apt-get -qq -o Dir::State=. -o Dir::State::Lists=lists -o Dir::State::Status=/dev/null \
        -o Dir::Cache=cache -o Dir::Etc::SourceList=/sysroot/apt/sources \
        -o Dir::Etc::SourceParts=/dev/null -o APT::Architecture="$1" -o APT::Architectures="$@"
}
apt "$1" update
apt "$1" download libc6 libc6-dev linux-libc-dev libcrypt1 libcrypt-dev libgcc-s1
for package in *.deb; do dpkg -x "$package" "/sysroot/$1"; done
# Absolute links would point outside it.
cd "/sysroot/$1"
find . -type l -lname '/*' | while read -r link; do
    ln -snf "$(realpath -sm --relative-to="$(dirname "$link")" "/sysroot/$1$(readlink "$link")")" "$link"
done
SCRIPT
    chroot "$sid" sh /sysroot/apt/get "$1" >>"$sid.log" 2>&1 ||
        { tail -n 5 "$sid.log" >&2; exit 1; }
    rm -rf "$sid/sysroot/apt"
    touch "$sid/sysroot/$1/complete"
}

debian_clean() {
    if [ "$2" = arm64 ]; then set -- "$@" arm64; fi
    debian_bootstrap "$debian/$1-$2" "$1" ${3:+"$3"}
    work=$(mktemp -d "$debian/try.XXXXXX")
    cp -a "$debian/$1-$2/." "$work/"
    debian_network "$work"
}

debian_enter() {
    # A separate user namespace, because binfmt_misc is configured per namespace: the machine's
    # configuration is not changed.
    unshare --user sleep infinity &
    debian_holder=$!
    while [ "$(readlink "/proc/$debian_holder/ns/user")" = "$(readlink /proc/self/ns/user)" ]; do
        sleep 0.05
    done
    echo "0 0 65536" >"/proc/$debian_holder/uid_map"
    echo "0 0 65536" >"/proc/$debian_holder/gid_map"
    debian_state=0
    QEMU=$sid/usr/bin/qemu-aarch64 FORMAT=$sid/usr/share/qemu/binfmt.d/qemu-aarch64.conf \
        nsenter --user --target "$debian_holder" --setuid 0 --setgid 0 \
        unshare --mount --pid --fork --kill-child --mount-proc \
        sh -eu -c '
root=$1
shift
if [ -e "$FORMAT" ]; then
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    # F: open the interpreter now, because it is not visible inside.
    sed -n "s|^\(:.*:\)[^:]*:[^:]*$|\1$QEMU:F|p" "$FORMAT" >/proc/sys/fs/binfmt_misc/register
fi
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" = -b ] || [ "$1" = -w ]; do
    mkdir -p "$root$3"
    mount --bind "$2" "$root$3"
    if [ "$1" = -b ]; then mount -o remount,bind,ro "$root$3"; fi
    shift 3
done
# Not with exec: the first process of a namespace would ignore Ctrl-C.
chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"
' sh "$@" || debian_state=$?
    kill "$debian_holder"
    wait "$debian_holder" 2>/dev/null || true
    return "$debian_state"
}
