#!/usr/bin/env bash
# Known vulnerabilities of the pinned versions (constraints.txt), by pip-audit. Ends with 0 if there are none or if the
# advisory service cannot be asked from here, which it says in one line; with 1 if there are any.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
if ! "$python" -m pip_audit --version >/dev/null 2>&1; then
  echo "audit: pip-audit is not installed, so nothing was checked: $python -m pip install pip-audit"
  exit 0
fi
said=$(mktemp)
trap 'rm -f "$said"' EXIT
code=0
"$python" -m pip_audit --no-deps --disable-pip --progress-spinner off --timeout 15 -r constraints.txt >"$said" 2>&1 || code=$?
if [ "$code" -ne 0 ] && ! grep -qE '^(Name|Found [0-9]+ known)' "$said"; then
  echo "audit: the advisory service cannot be reached from here, so nothing was checked"
  exit 0
fi
skipped=$(grep -c 'could not be audited' "$said" || true)
pinned=$(grep -cE '^[A-Za-z0-9]' constraints.txt)
if [ "$skipped" -ge "$pinned" ]; then
  echo "audit: the index that is asked from here has no advisories, so nothing was checked"
  exit 0
fi
cat "$said"
echo "audit: $((pinned - skipped)) of $pinned pinned versions were checked"
exit "$code"
