#!/usr/bin/env bash
# Builds the OpenTelemetry Collector that OTLP out is tested against, once per version and set of parts; prints where it is.
# Wants Go; takes two to five minutes the first time.  TRACEFWD_TEST_CACHE names another place for it.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
VERSION=v0.164.0
PARTS=$(cat "$HERE/builder.yaml" "$HERE"/statusutil/* | sha256sum | cut -c1-8)
OUT=${TRACEFWD_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tracefwd-tests}/otelcol-$VERSION-$PARTS
if [ ! -x "$OUT/otelcol" ]; then
	mkdir -p "$OUT"
	sed -e "s#\${HERE}#$HERE#" -e "s#\${OUT}#$OUT#" "$HERE/builder.yaml" >"$OUT/builder.yaml"
	GOBIN=$OUT go install "go.opentelemetry.io/collector/cmd/builder@$VERSION" >&2
	"$OUT/builder" --config "$OUT/builder.yaml" >&2
fi
echo "$OUT/otelcol"
