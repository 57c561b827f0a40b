# To be sourced by build.sh: what all Debian packages contain.

# Names, versions and licenses of all dependencies of packages of cargo.
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

# Copyright and changelog.
documents() { # directory
    mkdir -p "$1"
    cp tools/package/copyright "$1/"
    {
        printf 'loftup (%s) unstable; urgency=medium\n\n' "$VERSION"
        printf '  * See CHANGELOG.md.gz of the package loftup.\n\n -- The loftup-edge developers <%s>  %s\n' \
            "loftup@localhost" "$DATE"
    } >"$1/changelog"
    gzip -9n "$1/changelog"
}

# Prints the newest version of glibc that programs or libraries require, which must be old enough.
glibc_of() { # file...
    glibc=$("$cross_cpu-linux-gnu-objdump" -T "$@" |
        sed -n 's/.*GLIBC_\([0-9.]*\)).*/\1/p' | sort -uV | tail -n 1)
    if [ "$(printf '%s\n2.31\n' "$glibc" | sort -V | tail -n 1)" != 2.31 ]; then
        echo "$1 needs glibc $glibc: it would not run on JetPack 5" >&2
        exit 1
    fi
    echo "$glibc"
}

# Makes the package of a directory. The rest of its control file comes from standard input.
deb() { # name, directory
    (cd "$2" && find . -path ./DEBIAN -prune -o -path ./etc -prune -o -type f -printf '%P\0' |
        sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    {
        cat <<CONTROL
Package: $1
Version: $VERSION
Architecture: $arch
Maintainer: The loftup-edge developers <loftup@localhost>
Installed-Size: $(du -sk --exclude=DEBIAN "$2" | cut -f1)
Priority: optional
CONTROL
        cat
    } >"$2/DEBIAN/control"
    # Not zstd, the default here, which older releases do not support.
    dpkg-deb --root-owner-group -Zxz --build "$2" "/target/$1_${VERSION}_$arch.deb"
}
