#!/usr/bin/env bash
# One table of the parts' tables, on stdout: gather.sh OUT [jsonl|csv]. Parquet needs no gathering: the folder is a table.
set -euo pipefail

tables=${1:?the folder that the array job wrote to}/tables
case "${2:-jsonl}" in
jsonl) cat "$tables"/part-*.jsonl ;;
csv) awk 'FNR > 1 || !header++' "$tables"/part-*.csv ;; # the first line of the first file alone
*) echo "expected jsonl or csv; of parquet, read the folder $tables" >&2 && exit 2 ;;
esac
