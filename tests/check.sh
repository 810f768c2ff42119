#!/usr/bin/env bash
# Everything that must hold: style, types, tests. Uses the virtual environment .venv, or the python that is active.
# What is slow by nature is left out: tests/slow.sh runs it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=python3
test -x .venv/bin/python && python="$PWD/.venv/bin/python"
export OMP_NUM_THREADS=1 # two workers with one thread each: the models are tiny, more threads only wait for each other
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy &
types=$!
trap 'kill "$types" 2>/dev/null || true' EXIT
"$python" -m pytest -n 2 --dist worksteal -m "not slow" "$@"
wait "$types"
