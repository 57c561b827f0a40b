# Run by tools/try_library.sh inside a clean system: the packages are in /tmp, a bundle and an image in /tmp/expected.
export DEBIAN_FRONTEND=noninteractive
cd /tmp

step() { printf '== %s (%s s)\n' "$*" "$SECONDS"; }
fail() { echo "FAILED: $*"; exit 1; }
run() { # directory with the programs
    "$1/features" expected/robot.loftup expected/photo.ppm "$1/features.raw" >/dev/null
    "$1/classes" expected/robot.loftup classes expected/photo.ppm "$1/classes.raw" >/dev/null
    echo "$1: ran"
}

mkdir -p outputs/examples

step "$(ldd --version | head -n 1)"
apt-get -qq update
apt-get -qq -y --no-install-recommends install ./libloftup[0-9]*.deb
name=$(dpkg-query -W -f '${Package}\n' 'libloftup[0-9]*')
dpkg --verify "$name"
library=$(ldconfig -p | sed -n 's/.*libloftup\.so\.[0-9]* .*=> //p')
test -e "$library" || fail "ldconfig does not know the library"
test ! -e "${library%.so*}.so" || fail "the package of the shared library has the name for linking"
apt-get -qq -y --no-install-recommends install ./libloftup-dev*.deb gcc g++ make cmake pkg-config binutils
dpkg --audit
dpkg --verify "$name" libloftup-dev
others=$(nm -D --defined-only "$library" | grep -v ' loftup_' || true)
[ -z "$others" ] || fail "exported: $others"
test -s /usr/share/doc/libloftup-dev/third-party.gz

step pkg-config, shared and static
examples=/usr/share/doc/libloftup-dev/examples
shared=$(pkg-config --cflags --libs loftup)
static=$(pkg-config --cflags --libs --static loftup | sed 's/-lloftup/-l:libloftup.a/')
mkdir shared static
for kind in shared static; do
    flags=${!kind}
    echo "$kind: $flags"
    # shellcheck disable=SC2086
    gcc -std=c99 -pedantic -Wall -Werror "$examples/classes.c" -o "$kind/classes" $flags
    # shellcheck disable=SC2086
    g++ -std=c++17 -pedantic -Wall -Werror "$examples/features.cpp" -o "$kind/features" $flags
done
ldd shared/classes | grep -q 'libloftup\.so\.[0-9]' || fail "not linked to the shared library"
! ldd static/classes static/features | grep libloftup || fail "static programs need the shared library"

step CMake, shared and static
mkdir cmake
cat >cmake/CMakeLists.txt <<CMAKE
cmake_minimum_required(VERSION 3.16)
project(user LANGUAGES C CXX)
find_package(loftup 0.1 REQUIRED)
add_executable(features $examples/features.cpp)
target_compile_features(features PRIVATE cxx_std_17)
target_link_libraries(features PRIVATE loftup::loftup)
add_executable(classes $examples/classes.c)
target_link_libraries(classes PRIVATE loftup::static)
CMAKE
cmake -S cmake -B cmake/build >/dev/null
cmake --build cmake/build

step run
for programs in shared static cmake/build; do run "$programs"; done
for output in features.raw classes.raw; do
    cmp "shared/$output" "static/$output"
    cmp "shared/$output" "cmake/build/$output"
done

step without the development files
dpkg -r libloftup-dev
test ! -e "${library%.so*}.so" || fail "libloftup.so still exists"
shared/features expected/robot.loftup expected/photo.ppm again.raw >/dev/null
cmp shared/features.raw again.raw
dpkg -P "$name"
! ldconfig -p | grep libloftup || fail "ldconfig still knows the library"
! shared/features 2>/dev/null || fail "runs without its library"
mv shared/*.raw outputs/examples/

if ls loftup-*.whl >/dev/null 2>&1; then
    step the wheel
    apt-get -qq -y --no-install-recommends install python3-numpy python3-pip
    if python3 -c 'import sys, numpy; sys.exit((sys.version_info, numpy.__version__) < ((3, 10), "1.26"))'; then
        # Not in a virtual environment, which would need a wheel of NumPy.
        pip install --quiet --no-index --no-cache-dir --root-user-action ignore --break-system-packages loftup-*.whl
        mkdir outputs/python
        python3 - <<'PYTHON'
import loftup
import numpy
perceptor = loftup.Perceptor.open("expected/robot.loftup", engine="cpu")
perceptor.encode("expected/photo.ppm", size=(47, 61)).features().tofile("outputs/python/features.raw")
perceptor.encode("expected/photo.ppm", size=224).classes("classes").tofile("outputs/python/classes.raw")
print(f"loftup {loftup.__version__}, NumPy {numpy.__version__}")
PYTHON
    else
        echo "Python or NumPy is too old"
    fi
fi
