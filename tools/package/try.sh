# Run by tools/try_package.sh inside a clean system: /tmp/loftup.deb is the package.
arch=$1
export DEBIAN_FRONTEND=noninteractive
cd /tmp

step() { printf '== %s (%s s)\n' "$*" "$SECONDS"; }
fail() { echo "FAILED: $*"; exit 1; }
as_service() { setpriv --reuid=loftup --regid=loftup --init-groups env HOME=/nonexistent "$@"; }

step "$(ldd --version | head -n 1)"
apt-get -qq update
apt-get -qq -y --no-install-recommends install ./loftup.deb
dpkg --audit
dpkg --verify loftup
getent passwd loftup

step what it says of itself
loftup --version
loftup-node --version
! ldd /usr/bin/loftup /usr/bin/loftup-node | grep 'not found' || fail "a library is missing"
bash -n /usr/share/bash-completion/completions/loftup
test -s /usr/share/man/man1/loftup-convert.1.gz
test -s /usr/share/man/man1/loftup-node.1.gz

step the configuration as installed
as_service loftup-node /etc/loftup/node.toml --check
test -d /usr/share/loftup/default.loftup

step the node for some seconds, as the user of the service
want=5
if [ "$arch" = arm64 ]; then
    # qemu is about a thousand times slower than a CPU.
    sed -i -e 's/\[112, 112\]/[8, 8]/; /^\[\[degrade/,/^$/d' -e 's/^rate_hz = .*/rate_hz = 0.05/' \
        -e 's/^deadline_ms = .*/deadline_ms = 60000\nmax_age_ms = 600000/' \
        -e '$a [watchdog]\nhang_ms = 600000' /etc/loftup/node.toml
    want=1
fi
mkdir -p /var/cache/loftup /var/lib/loftup
chown loftup:loftup /var/cache/loftup /var/lib/loftup
(cd /var/lib/loftup && exec setpriv --reuid=loftup --regid=loftup --init-groups env \
    XDG_CACHE_HOME=/var/cache/loftup loftup-node /etc/loftup/node.toml) >node.log 2>&1 &
node=$!
outputs=0
for _ in $(seq 450); do
    sleep 2
    kill -0 "$node" || { cat node.log; fail "the node exited"; }
    exec 3<>/dev/tcp/127.0.0.1/9477 || continue
    printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
    outputs=$(sed -n 's/^loftup_outputs_published_total \([0-9]*\).*/\1/p' <&3)
    exec 3>&-
    if [ "${outputs:-0}" -ge "$want" ]; then break; fi
done
kill -TERM "$node"
code=0
wait "$node" || code=$?
tail -n 5 node.log
[ "${outputs:-0}" -ge "$want" ] || fail "only ${outputs:-0} outputs in 900 s"
[ "$code" = 0 ] || fail "the node exited with $code"
echo "$outputs outputs, exited on SIGTERM with code 0"

step the command
loftup inspect /usr/share/loftup/default.loftup
if [ "$arch" = amd64 ]; then
    loftup convert --builtin --out own.loftup
    loftup verify own.loftup
    step the demo
    if loftup demo --out demo; then
        test -s demo/report.html || fail "no report"
    else
        loftup demo --out demo 2>&1 | grep -q 'without training' || fail "no demo"
        echo "a package without training"
    fi
fi

step an upgrade keeps the configuration
echo '# mine' >>/etc/loftup/node.toml
dpkg-deb -R loftup.deb next
sed -i 's/^Version: \(.*\)/Version: \1+next/' next/DEBIAN/control
dpkg-deb -Znone -b next next.deb >/dev/null
dpkg -i next.deb
dpkg-query -W loftup | grep -q '+next' || fail "not upgraded"
grep -q '^# mine$' /etc/loftup/node.toml || fail "the configuration was overwritten"
as_service loftup-node /etc/loftup/node.toml --check

step removal keeps the configuration, purging does not
touch /var/cache/loftup/engine
dpkg -r loftup
test ! -e /usr/bin/loftup || fail "the program still exists"
grep -q '^# mine$' /etc/loftup/node.toml || fail "the configuration is missing"
dpkg -P loftup
test ! -e /etc/loftup || fail "the configuration still exists"
test ! -e /var/cache/loftup || fail "the cache still exists"
! getent passwd loftup || fail "the user still exists"
! dpkg -s loftup 2>/dev/null | grep '^Status' || fail "dpkg still lists it"

step all well
