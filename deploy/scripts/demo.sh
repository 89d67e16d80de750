#!/usr/bin/env bash
# The guestbook on a one-node cluster, start to finish. Usage: demo.sh PATH_TO_REEVE
# KEEP=1 leaves the cluster up. NAME=x names it (default demo). Leaves nothing behind otherwise.
set -euo pipefail
cd "$(dirname "$0")/../.."
reeve=$(realpath "$1")
name=${NAME:-demo}
work=$(mktemp -d)
export KUBECONFIG="$work/kubeconfig"
example=deploy/examples/guestbook

if [ "$(id -u)" != 0 ]; then
    echo "make demo needs root (it starts containers): sudo make demo" >&2
    exit 1
fi

load_pid=
finish() {
    status=$?
    [ -n "$load_pid" ] && kill "$load_pid" 2>/dev/null
    if [ "${KEEP:-}" = 1 ] && [ $status = 0 ]; then
        cp "$KUBECONFIG" "/tmp/reeve-$name.kubeconfig"
        echo "The cluster is left up: export KUBECONFIG=/tmp/reeve-$name.kubeconfig; end it with: $reeve down --name $name --purge"
    else
        if [ $status != 0 ]; then
            echo "--- the demo failed; what the cluster says:" >&2
            "$reeve" get pods -A -o wide >&2 || true
            "$reeve" get events >&2 || true
            tail -n 40 "$work/data/reeve.log" >&2 || true
        fi
        "$reeve" down --name "$name" --data-dir "$work/data" --purge || status=1
        rm -rf "$work"
    fi
    exit $status
}
trap finish EXIT

now() { date +%s.%N; }
began=$(now)
step() { # step TITLE COMMAND…
    local title=$1 from to
    shift
    printf '\n== %s\n' "$title"
    from=$(now)
    "$@"
    to=$(now)
    printf '   (%.2f s)\n' "$(awk "BEGIN{print $to-$from}")"
}

build_images() {
    cargo rustc --release --locked -p guestbook --target-dir "${CARGO_TARGET_DIR:-target}/guestbook" \
        --target "$(rustc -vV | sed -n 's/^host: //p')" -- -C target-feature=+crt-static
    local binary
    binary=$(find "${CARGO_TARGET_DIR:-target}/guestbook" -path '*release/guestbook' -type f | head -n 1)
    for version in v1 v2; do
        mkdir -p "$work/$version"
        cp "$binary" "$work/$version/guestbook"
        sed "s/GUESTBOOK_VERSION=v1/GUESTBOOK_VERSION=$version/" "$example/Dockerfile" >"$work/$version/Dockerfile"
        "$reeve" build --name "$name" -t "guestbook:$version" "$work/$version"
    done
}

write_and_read() {
    port=$("$reeve" get service guestbook-frontend -o 'jsonpath={.spec.ports[0].nodePort}')
    curl -fsS --max-time 5 -d 'Hello from the demo' "http://127.0.0.1:$port/entries"
    curl -fsS --max-time 5 "http://127.0.0.1:$port/entries" | tee "$work/entries"
    grep -q 'Hello from the demo' "$work/entries"
}

kill_one() { # as a crash would: SIGKILL to the program inside, found through the pod's cgroup
    local pod uid pid
    pod=$("$reeve" get pods -l app=guestbook,tier=frontend -o 'jsonpath={.items[0].metadata.name}')
    uid=$("$reeve" get pod "$pod" -o 'jsonpath={.metadata.uid}')
    for pid in $(pgrep -f '^/guestbook frontend'); do
        grep -q "$uid" "/proc/$pid/cgroup" && break
    done
    echo "killing the front-end container of $pod (process $pid)"
    kill -KILL "$pid"
    "$reeve" wait --for=jsonpath='{.status.containerStatuses[0].restartCount}'=1 "pod/$pod" --timeout=30s
    "$reeve" wait --for=condition=Ready "pod/$pod" --timeout=30s
}

load() { # asks without pause until told to stop; one line per answer that was not 200
    while [ ! -e "$work/stop" ]; do
        code=$(curl -s -o "$work/answer" -w '%{http_code}' --max-time 5 "http://127.0.0.1:$port/entries" || true)
        echo >>"$work/asked"
        [ "$code" = 200 ] || echo "$(date +%T.%N) $code" >>"$work/failed"
    done
}

roll_out() {
    : >"$work/asked"; : >"$work/failed"
    load &
    load_pid=$!
    "$reeve" set image deployment/guestbook-frontend frontend=guestbook:v2
    "$reeve" rollout status deployment/guestbook-frontend --timeout=120s
    sleep 1
    touch "$work/stop"
    wait "$load_pid"
    load_pid=
    echo "version now: $(curl -fsS --max-time 5 "http://127.0.0.1:$port/version")"
    echo "requests during the rollout: $(wc -l <"$work/asked"), failed: $(wc -l <"$work/failed")"
    cat "$work/failed"
    [ ! -s "$work/failed" ]
}

step "reeve up" "$reeve" up --name "$name" --data-dir "$work/data"
step "build the guestbook's images" build_images
step "apply" "$reeve" apply -f "$example/guestbook.yaml"
step "wait for the rollout" sh -c "'$reeve' rollout status deployment/guestbook-backend --timeout=60s && '$reeve' rollout status deployment/guestbook-frontend --timeout=60s"
step "write and read an entry through the NodePort" write_and_read
step "kill a front-end container and see it come back" kill_one
step "roll out a new version while requests run" roll_out
step "pods and services" "$reeve" get pods,svc -o wide
printf '\nThe whole demo took %.1f s.\n' "$(awk "BEGIN{print $(now)-$began}")"
