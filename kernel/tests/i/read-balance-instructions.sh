# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# How many instructions a request costs where the patches gain nothing: legs that are equal and answer at once. The guest has one CPU,
# which takes a nanosecond for an instruction, so that time is a count.

count=20000

# per_request <fio option>…: instructions of one request, fio's own included.
per_request() {
	fio --name=c --filename="$md" --direct=1 --bs=4k --norandommap --randseed=1 --ioengine=psync --size=200M --number_ios=$count \
		--output-format=terse --terse-version=3 "$@" | awk -F';' -v n=$count '{ print ($9 + $50) * 1000000 / n }'
}

for level in raid1 raid10; do
	for count_of_legs in 2 3; do
		legs=()
		for ((n = 0; n < count_of_legs; n++)); do
			leg "leg$n" 256 0
			legs+=("leg$n")
		done
		array_of_legs "$level" "${legs[@]}"
		per_request --rw=randread >/dev/null
		for op in read write; do
			on=() off=()
			for n in 1 2 3; do
				switch 1
				on+=("$(per_request --rw="rand$op")")
				switch 0
				off+=("$(per_request --rw="rand$op")")
			done
			if [[ $op == read ]]; then
				row 3 "read-balance-cost-instructions-$base-$level-$count_of_legs" "instructions a read" "≤ 1.02" "$(median "${on[@]}")"
				row 3 "read-balance-cost-instructions-off-$base-$level-$count_of_legs" "instructions a read; ours: switched off" "≤ 1.02" \
					"$(median "${off[@]}")"
			else
				row 3 "barrier-cost-instructions-$base-$level-$count_of_legs" "instructions a write" "≤ 1.02" "$(median "${on[@]}")"
			fi
		done
		clean_up
	done
done
