#!/bin/sh
# Builds the real Wavefront proxy, release 13.8, as one runnable jar; nothing of it is patched.
#   build.sh CLONE OUT.jar
# CLONE: any git clone, mirror or URL of wavefrontHQ/wavefront-proxy.  Needs git, a JDK (11 to 17) and Maven with a
# way to Maven Central.  Nothing stays behind but OUT.jar and Maven's own cache.
set -eu
[ $# -eq 2 ] || { echo "usage: $0 CLONE OUT.jar" >&2; exit 2; }
for tool in git java mvn; do
    command -v "$tool" >/dev/null || { echo "build.sh: $tool is missing" >&2; exit 2; }
done
release=165271ae # "prepare release proxy-13.8"
mkdir -p "$(dirname "$2")"
out=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

git clone --quiet "$1" "$work/proxy"
git -C "$work/proxy" checkout --quiet "$release"
# What is left out judges the proxy's source (tests, coverage, layout, the JDK of its authors), not the jar.
mvn --batch-mode --quiet --file "$work/proxy/proxy" package \
    -Dmaven.test.skip=true -Djacoco.skip=true -DskipFormatCode=true -Denforcer.skip=true
cp "$work"/proxy/proxy/target/proxy-*-spring-boot.jar "$out"
echo "$out"
