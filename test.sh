#!/usr/bin/env bash
# Passes all tests on a fresh Debian machine with a Rust toolchain: installs what is missing, starts a
# PostgreSQL of its own on a free loopback port in a temporary folder, and leaves nothing running.
# With --long the tests that take minutes run as well, and all of them on an optimized build, since some attacks are close
# to what a machine can do. Other arguments are handed to the test binaries (a filter, --nocapture).
set -euo pipefail
cd "$(dirname "$0")"

long=()
if [ "${1:-}" = --long ]; then
  long=(--include-ignored)
  shift
fi

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# as_postgres: PostgreSQL refuses to run as root, so root becomes the `postgres` user of Debian's package.
as_postgres() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }

need=()
command -v git >/dev/null || need+=(git)
command -v cc >/dev/null || need+=(gcc libc6-dev)
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || need+=(postgresql)
if [ ${#need[@]} -gt 0 ]; then
  echo "test.sh: installing ${need[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${need[@]}" >/dev/null
fi
pg_bin=$(dirname "$(ls /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)")

work=$(mktemp -d)
chmod 755 "$work"
finish() {
  status=$?
  as_postgres "$pg_bin/pg_ctl" -D "$work/pg/data" -m immediate -w stop >/dev/null 2>&1 || true
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

mkdir "$work/pg"
if [ "$(id -u)" = 0 ]; then chown postgres "$work/pg"; fi
as_postgres "$pg_bin/initdb" -D "$work/pg/data" -U postgres -A trust -E UTF8 --no-sync >"$work/initdb.log" 2>&1 ||
  { cat "$work/initdb.log"; exit 1; }
# The port is free when asked for; should somebody else take it before PostgreSQL does, the next one is tried.
for try in 1 2 3 4 5; do
  port=$((20000 + (RANDOM + try) % 20000))
  if as_postgres "$pg_bin/pg_ctl" -D "$work/pg/data" -w -t 60 -l "$work/pg/log" \
    -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$work/pg -c max_connections=300 -c fsync=off" start >/dev/null; then
    break
  fi
  [ "$try" -lt 5 ] || { cat "$work/pg/log"; exit 1; }
done

if [ ${#long[@]} -gt 0 ]; then
  cargo build --locked --release
  export RESCIND_TEST_BINARY="${CARGO_TARGET_DIR:-$PWD/target}/release/rescind"
fi
export RESCIND_TEST_POSTGRES="postgres://postgres@127.0.0.1:$port/postgres"
if command -v cargo-nextest >/dev/null && [ $# -eq 0 ]; then
  cargo nextest run --locked --no-fail-fast ${long:+--run-ignored all}
else
  cargo test --locked --lib --bins --test it -- ${long[@]+"${long[@]}"} "$@"
fi
