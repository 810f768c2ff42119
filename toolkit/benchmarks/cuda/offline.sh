#!/usr/bin/env bash
# The CUDA benchmark on a machine without a network, with Python 3.12 and PyTorch 2.11.
#     offline.sh bring WHEELS          where there is a network and the same Python: fetches and builds the packages
#     offline.sh run WHEELS [MINUTES]  on the machine: installs them from WHEELS alone, then runs the benchmark (8 minutes)
# PYTHON names the interpreter (python3 where it is not set). Run it again to go on with the cells that are missing.
set -euo pipefail
cd "$(dirname "$0")/../../.."
python="${PYTHON:-python3}"
packages=toolkit/benchmarks/cuda/offline.txt
wheels="${2:?give the folder of the wheels}"
case "${1:-}" in
bring)
  "$python" -m pip wheel --no-deps -r "$packages" -w "$wheels"
  ;;
run)
  "$python" -m pip install --no-index --no-deps --find-links "$wheels" -r "$packages"
  "$python" -m toolkit.benchmarks.cuda --out reports/results/cuda --minutes "${3:-8}"
  ;;
*)
  echo "usage: offline.sh bring WHEELS | run WHEELS [MINUTES]" >&2
  exit 2
  ;;
esac
