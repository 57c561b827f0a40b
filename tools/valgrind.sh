#!/bin/sh
# Runs a program that uses libloftup in Valgrind. The exit status is 9 if it finds an error or a leak.
#
#   tools/valgrind.sh PROGRAM ARGUMENTS...
#
# See tools/valgrind.c for what is different from plain Valgrind.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${CC:-cc}" -o "$work/without_auxv" "$root/tools/valgrind.c"
"$work/without_auxv" valgrind --leak-check=full --errors-for-leak-kinds=definite --error-exitcode=9 "$@"
