#!/usr/bin/env bash
# The tests that are slow by nature (40 minutes at most on 2 cores), with the environment that tests/check.sh uses.
set -euo pipefail
cd "$(dirname "$0")/.."
python=python3
test -x .venv/bin/python && python="$PWD/.venv/bin/python"
export OMP_NUM_THREADS=1
"$python" -m pytest -n 2 --dist worksteal -m slow "$@"
