#!/usr/bin/env bash
# A table of what build.sh has built: what, which content, size, how long it took, when, and whether this clone uses it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

current=" $(kernel_out) $(kube_out) $(root_out) "
for name in "${named_series[@]}"; do current+="$(series_name=$name kernel_out) "; done
row='%-7s %-22s %9s %8s  %-20s  %-4s %s\n'
# shellcheck disable=SC2059 # the format is the constant above
{
	printf "$row" what content size took built used source
	for dir in "$cache_dir"/{kernel,kube,root,md,debian}/*/; do
		dir=${dir%/}
		is_done "$dir" || continue
		seconds='' bytes=0 built='' source=''
		while IFS='=' read -r key value; do
			case $key in seconds | bytes | built | source) printf -v "$key" '%s' "$value" ;; esac
		done <"$dir/.meta"
		used=no
		[[ $current != *" $dir "* ]] || used=yes
		printf "$row" "$(basename "$(dirname "$dir")")" "$(basename "$dir")" "$((bytes / 1048576)) MiB" "$seconds s" "$built" "$used" "$source"
	done
}
printf '\n%s in all, with sources and objects: %s\n' "$cache_dir" "$(du -sh -- "$cache_dir" | cut -f1)"
