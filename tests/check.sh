#!/usr/bin/env bash
# Everything that must hold: style, types, tests. Uses the virtual environment .venv, or the python that is active.
set -euo pipefail
cd "$(dirname "$0")/.."
python=python3
test -x .venv/bin/python && python=.venv/bin/python
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
"$python" -m pytest "$@"
