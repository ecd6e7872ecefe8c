#!/usr/bin/env bash
# run.sh [DIRECTORY]: the tests of config/argocd, with a line at the end that e2e/tally.sh counts. With a directory of objects that end-to-end
# runs captured, what Argo CD and Flux make of those alone; else all of them, which need the API server of crds/tests/with-api-server.sh.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
only=()
if (($#)); then
	MESHSTOR_OBJECTS=$(cd -- "$1" && pwd)
	export MESHSTOR_OBJECTS
	only=(-run TestEveryObjectThatRunsProduced)
fi
out=$(mktemp)
trap 'rm -f -- "$out"' EXIT
rc=0
(cd -- "$here" && go vet ./... && go test -count=1 -v "${only[@]}" ./...) 2>&1 | tee -- "$out" || rc=1
passed=$(grep -c '^--- PASS' "$out" || true) failed=$(grep -c '^--- FAIL' "$out" || true)
# What did not compile, and a filter that chose nothing, are failures too.
if (((rc || passed == 0) && failed == 0)); then failed=1 rc=1; fi
if ((failed)); then word=FAILED; else word=ok; fi
echo "test result: $word. $passed passed; $failed failed;"
exit "$rc"
