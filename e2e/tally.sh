#!/bin/sh
# tally.sh LOG…: sums the `test result:` lines of cargo's logs, prints `N passed, N failed`, and fails if any test failed or
# none ran.
exec awk '
	/^test result: / {
		for (i = 2; i <= NF; i++) {
			if ($i == "passed;") passed += $(i - 1)
			if ($i == "failed;") failed += $(i - 1)
		}
	}
	END {
		printf "%d passed, %d failed\n", passed, failed
		exit failed > 0 || passed == 0
	}' /dev/null "$@"
