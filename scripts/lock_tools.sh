#!/usr/bin/env bash
# Write src/mooring/commands/install/tools/*.txt anew: what `mooring install` fetches, with all that it needs, by hash.
# Needs uv. Versions are chosen in the *.in files.
set -euo pipefail
cd "$(dirname "$0")/../src/mooring/commands/install/tools"
for tool in *.in; do
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade \
    --output-file "${tool%.in}.txt" "$tool"
done
