#!/bin/sh
# Builds the post's three apps, as far as their languages are on this machine, and prints the options with which
# `flyproxy demo` starts them. What is left out is said on standard error.
set -eu
cd "$(dirname "$0")"

say() { echo "$1" >&2; }

BUILD_S=180

printf '%s\n' "--app" "hello=examples/flask/app.py"

if ! command -v go >/dev/null; then
  say "the demo goes without its Go app: Go is not installed (Debian: golang-go golang-github-prometheus-client-golang-dev)"
elif timeout "$BUILD_S" sh go/build.sh >&2; then
  printf '%s\n' "--app" "go=examples/go/app"
else
  say "the demo goes without its Go app: it could not be built (see above; Debian: golang-github-prometheus-client-golang-dev)"
fi

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  say "the demo goes without its Express app: Node.js with npm is not installed (Debian: nodejs npm)"
elif [ -d express/node_modules/express ] || (cd express && timeout "$BUILD_S" npm ci --ignore-scripts --no-audit --no-fund --silent >&2); then
  printf '%s\n' "--app" "express=examples/express/app.js"
else
  say "the demo goes without its Express app: its packages could not be installed (see above)"
fi
