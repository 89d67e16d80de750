#!/usr/bin/env bash
# Measures the figures of a release build and prints them as a table. Usage: bench.sh PATH_TO_REEVE
# Logic is in tests/src/bin/bench; it cleans up after itself.
set -euo pipefail
cd "$(dirname "$0")/../.."
reeve=$(realpath "$1")

if [ "$(id -u)" != 0 ]; then
    echo "make bench needs root (it starts containers): sudo make bench" >&2
    exit 1
fi
deploy/scripts/deps.sh bench
cargo build --release --locked -p reeve-tests --bin bench
"${CARGO_TARGET_DIR:-target}/release/bench" "$reeve"
echo "== the engine beside crun, runc and podman, as far as they are installed"
cargo bench --locked -p reeve-engine --bench engine
