#!/usr/bin/env bash
# Write constraints.txt from what is installed in .venv: the versions that were tested together.
set -euo pipefail
cd "$(dirname "$0")/.."
{
  echo "# The versions tested together, written by scripts/lock.sh; \`make\` installs exactly these."
  .venv/bin/python -m pip freeze --exclude-editable --exclude mooring 2>/dev/null | sort -f
} >constraints.txt
