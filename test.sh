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
python3 -c 'import ensurepip, venv' 2>/dev/null || need+=(python3-venv)
if [ ${#long[@]} -gt 0 ]; then
  command -v node >/dev/null || need+=(nodejs)
  command -v npm >/dev/null || need+=(npm)
fi
if [ ${#need[@]} -gt 0 ]; then
  echo "test.sh: installing ${need[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${need[@]}" >/dev/null
fi

# The tools that make clients of the description, in a place of their own that the next run finds. They are put there anew
# when a version changes.
clients="${CARGO_TARGET_DIR:-$PWD/target}/clients"
# provide NAME FILE…: runs the function install_NAME unless it did for these files.
provide() {
  local stamp
  stamp=$(cat "${@:2}" | sha256sum)
  [ "$(cat "$clients/$1.stamp" 2>/dev/null)" = "$stamp" ] && return
  echo "test.sh: installing $1 into $clients"
  rm -f "$clients/$1.stamp"
  "install_$1"
  echo "$stamp" >"$clients/$1.stamp"
}
pip_install() { "$clients/venv/bin/pip" install --quiet --disable-pip-version-check -r "$1"; }
install_python() {
  rm -rf "$clients/venv" "$clients/long.stamp"
  python3 -m venv "$clients/venv"
  pip_install tests/clients/requirements.txt
}
install_long() { pip_install tests/clients/requirements-long.txt; }
install_npm() {
  mkdir -p "$clients/npm"
  cp tests/clients/package.json "$clients/npm/"
  npm install --prefix "$clients/npm" --no-package-lock --no-audit --no-fund --silent
}
mkdir -p "$clients"
provide python tests/clients/requirements.txt
if [ ${#long[@]} -gt 0 ]; then
  provide long tests/clients/requirements.txt tests/clients/requirements-long.txt
  provide npm tests/clients/package.json
fi
export RESCIND_TEST_CLIENTS="$clients"

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
