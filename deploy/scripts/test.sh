#!/usr/bin/env bash
# Runs every test: builds once, in one profile, then runs; ends with the test runner's own closing lines.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PATH:/usr/sbin:/sbin"
cargo fmt --all -- --check
exec cargo test --workspace --locked --no-fail-fast
