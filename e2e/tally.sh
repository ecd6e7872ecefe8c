#!/bin/sh
# tally.sh LOG…: what the failed tests in cargo's logs said, in short, then the sum of the `test result:` lines as `N passed, N failed`. It
# fails if any test failed or none ran.
exec awk '
	FNR == 1 { left = 0 }
	/^---- .* ----$/ { left = 12 }
	/^(failures:|test result: )/ { left = 0 }
	left > 0 && NF { print substr($0, 1, 400); left-- }
	/^test .*\.\.\. FAILED/ { print }
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
