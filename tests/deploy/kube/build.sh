#!/bin/sh
# Builds what check.py runs: the API server, istiod, istioctl and Istio's agent.  From nothing about eleven minutes of two
# cores and 6 GB of Go's build cache; what is there already is left alone.  etcd is the distribution's (Debian: etcd-server).
# usage: build.sh    TRACEFWD_CACHE: where (~/.cache/tracefwd)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
"$here/tools.sh"
bin="${TRACEFWD_CACHE:-$HOME/.cache/tracefwd}/kube/bin"
version=k8s.io/component-base/version
export GOFLAGS=-buildvcs=false GOTOOLCHAIN=local GOBIN="$bin"
if ! [ -x "$bin/kube-apiserver" ]; then
	(cd "$here/apiserver" && nice go build -trimpath -ldflags \
		"-s -w -X $version.gitVersion=v1.37.2 -X $version.gitMajor=1 -X $version.gitMinor=37" \
		-o "$bin/kube-apiserver" k8s.io/kubernetes/cmd/kube-apiserver)
fi
# Istio's main branch, between 1.31 and 1.32: the only version whose modules can be installed by name.
istio=v0.0.0-20260827124520-eed52ebb66ad
for part in istioctl/cmd/istioctl pilot/cmd/pilot-discovery pilot/cmd/pilot-agent; do
	[ -x "$bin/${part##*/}" ] || nice go install -trimpath -ldflags "-s -w" "istio.io/istio/$part@$istio"
done
# The agent's template for Envoy's bootstrap.
if ! [ -f "$bin/envoy_bootstrap.json" ]; then
	module=$(cd / && go mod download -json "istio.io/istio@$istio" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
	install -m 644 "$module/tools/packaging/common/envoy_bootstrap.json" "$bin/envoy_bootstrap.json"
fi
