#!/bin/bash
# Five runs, one after the other, in the folder that is given; each is timed.
# PYTHON may name another interpreter.
set -e
mkdir -p "$1"
export OMP_NUM_THREADS=1
same="--space tiny --proxy-size 32 --steps 600 --short-list 5 --workers 0"
TIMEFORMAT='%R s elapsed, %U s of the CPU'
ask() {
    echo "== $*"
    time "${PYTHON:-python}" run_search.py "$@" > "$folder/last.txt" 2>&1
    grep -E "already|^supernet:" "$folder/last.txt" || true
}
folder=$1
ask $same --budget 600MFLOPs --trials 40 --out "$folder/forty"
ask $same --budget 600MFLOPs --trials 120 --out "$folder/forty"
ask $same --budget 600MFLOPs --trials 120 --out "$folder/anew"
ask --short-list 5 --workers 0 --budget 300MFLOPs --trials 40 --supernet "$folder/forty" --out "$folder/half"
ask $same --budget 300MFLOPs --trials 40 --out "$folder/half-anew"
