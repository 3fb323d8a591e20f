#!/usr/bin/env bash
# The short form of `make test-vllm`, for continuous integration. Its environment (about 3 GB) is kept from run to run in
# $INFERMAX_VLLM_HOME. What is not the code's fault, a download that fails or a machine that is too slow, is said in a
# line; a failing test fails.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export INFERMAX_VLLM_SHORT=1
export INFERMAX_VLLM_HOME="${INFERMAX_VLLM_HOME:-${HOME:-/tmp}/.cache/infermax-gym/vllm}"
left_out() {
  echo "the plug-in was not tried inside vLLM: $1" >&2
  exit 0
}
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
timeout --kill-after=20 420 make --no-print-directory vllm-environment >"$log" 2>&1 </dev/null \
  || left_out "no environment within 7 minutes ($(tail -n 1 "$log"))"
timeout --kill-after=20 420 make --no-print-directory test-vllm </dev/null
code=$?
case "$code" in
  124 | 137) left_out "the checks did not end within 7 minutes" ;;
  *) exit "$code" ;;
esac
