#!/usr/bin/env bash
# take.sh DIRECTORY: adds what end-to-end runs captured to the objects that are kept here, and what comes out of them to expected/: read it in the
# diff before you commit it.
set -euo pipefail
from=$(cd -- "$1" && pwd)
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
mkdir -p objects expected
cp -r -- "$from/." objects/
go test -count=1 -run TestEveryObjectThatRunsProduced . -update
git add --intent-to-add objects expected
git diff --stat -- objects expected
