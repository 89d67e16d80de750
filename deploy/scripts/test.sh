#!/usr/bin/env bash
# Runs every test: builds once, in one profile, then runs; ends with the test runner's own closing lines. What failed
# runs once more.
set -euo pipefail
if [ "${1:-}" = --unless-apart ]; then # as cargo's runner, see below: PROGRAM ARGUMENTS
    shift
    case " $REEVE_TESTS_APART " in
    *" $(basename "${1%-*}") "*) exit 0 ;;
    *) exec "$@" ;;
    esac
fi
cd "$(dirname "$0")/../.."
export PATH="$PATH:/usr/sbin:/sbin"
if cargo fmt --version >/dev/null 2>&1; then
    cargo fmt --all -- --check
else
    echo "SKIPPED: formatting is not checked: this toolchain has no rustfmt" >&2
fi
# The end-to-end tests run the program that this very build makes.
target=$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
export REEVE_BIN="$target/debug/reeve"
output=$(mktemp)
apart=$(mktemp)
trap 'rm -f "$output" "$apart"; jobs -p | xargs -r kill' EXIT
all=(cargo test --workspace --features reeve-store/sim --locked --no-fail-fast)
"${all[@]}" --no-run
# These mostly wait, for clusters and virtual machines: they run beside all others, one after the other.
export REEVE_TESTS_APART="e2e servers vm"
"${all[@]}" $(printf -- ' --test %s' $REEVE_TESTS_APART) >"$apart" 2>&1 &
beside=$!
runner=CARGO_TARGET_$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')_RUNNER
passed=true
env "$runner=$PWD/deploy/scripts/test.sh --unless-apart" "${all[@]}" 2>&1 | tee "$output" || passed=false
wait "$beside" || passed=false
cat "$apart"
cat "$apart" >>"$output"
if $passed; then
    exit 0
fi
# Real kernels, real clocks, two busy cores: a failure is looked at once more, and never passed over in silence. Only
# what failed runs again; whatever has no name, like a program that died of a signal, is not forgiven.
mapfile -t failed < <(sed -n 's/^test \([^ ]*\) .*\.\.\. FAILED$/\1/p' "$output")
counted=$(sed -n 's/^test result: FAILED\..* \([0-9]*\) failed;.*/\1/p' "$output" | awk '{n += $1} END {print n + 0}')
ended=$(grep -c '^test result: FAILED' "$output" || true)
broken=$(grep -c '^error: test failed' "$output" || true)
if [ "${#failed[@]}" -eq 0 ] || [ "${#failed[@]}" -ne "$counted" ] || [ "$ended" -ne "$broken" ]; then
    echo "FAILED: something other than a test" >&2
    exit 1
fi
echo "FAILED, running again; what passes now is FLAKY and wants an issue:" "${failed[@]}" >&2
"${all[@]}" -- --exact "${failed[@]}"
