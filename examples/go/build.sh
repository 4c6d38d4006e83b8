#!/bin/sh
# Builds ./app. With Debian's packages (golang-go, golang-github-prometheus-client-golang-dev) no module proxy is asked;
# without them Go fetches the modules that go.mod names.
set -eu
cd "$(dirname "$0")"
debian=/usr/share/gocode
if [ -d "$debian/src/github.com/prometheus/client_golang" ]; then
  GO111MODULE=off GOPATH="$debian" GOFLAGS= go build -o app main.go
else
  go mod tidy && go build -o app .
fi
