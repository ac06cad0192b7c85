#!/usr/bin/env bash
# Compares `rescind scan` with `rg -j1` and one literal on the same tree: bytes per CPU second of each, in turn, and
# the median of the ratios. Requires ripgrep and a release build (cargo build --release).
#
# benches/scan_tree.sh [FOLDER] [ROUNDS]      default: the sources of the crates that cargo downloaded, 5
set -euo pipefail
tree=${1:-${CARGO_HOME:-$HOME/.cargo}/registry/src}
rounds=${2:-5}
rescind=$(dirname "$0")/../target/release/rescind
command -v rg >/dev/null || { echo "rg is missing: apt-get install ripgrep" >&2; exit 2; }
[ -x "$rescind" ] || { echo "no release build: cargo build --release" >&2; exit 2; }
TIMEFORMAT='%U %S'

# cpu COMMAND…: prints the sum of user and system seconds of one run.
cpu() { { time "$@" >/dev/null 2>&1 || true; } 2>&1 | tail -n 1 | awk '{ print $1 + $2 }'; }

ours() { "$rescind" scan --no-ignore "$tree"; }
theirs() { rg -j1 --no-ignore --hidden --text --no-messages rsc_sk_ "$tree"; }

ours 2>&1 >/dev/null | tail -n 1
cpu theirs >/dev/null
ratios=()
for _ in $(seq "$rounds"); do
  a=$(cpu ours)
  b=$(cpu theirs)
  ratio=$(awk -v a="$a" -v b="$b" 'BEGIN { printf "%.2f", b / a }')
  echo "rescind $a CPU s, rg -j1 $b CPU s, ratio $ratio"
  ratios+=("$ratio")
done
echo "median ratio $(printf '%s\n' "${ratios[@]}" | sort -n | sed -n "$(((rounds + 1) / 2))p")"
