#!/usr/bin/env bash
# docs/COMPATIBILITY.md: what works under which engine on which host, of the results that the suites have left in out/results.
#
#   compatibility.sh          writes it
#   compatibility.sh --check  says whether it is as this has written it (no cell is filled by hand), of results without a failure
set -euo pipefail
cd "$(dirname "$0")/.."
readonly page=docs/COMPATIBILITY.md

sum_of() { sed '/^<!-- sum: /d' | sha256sum | cut -c 1-32; }

if [ "${1:-}" = --check ]; then
    said=$(sed -n 's/^<!-- sum: \([0-9a-f]*\) -->$/\1/p' "$page")
    [ "$said" = "$(sum_of <"$page")" ] || { echo "$page is not as \`make compatibility\` has written it" >&2; exit 1; }
    ! grep -E '\*\*[0-9]+ fail\*\*' "$page" || { echo "$page has failures" >&2; exit 1; }
    exit 0
fi

shopt -s nullglob
results=(out/results/*.tsv)
[ ${#results[@]} != 0 ] || { echo "no results in out/results: run \`make test\`, \`make test-vm\` or both" >&2; exit 1; }
new=$(mktemp)
trap 'rm -f "$new" "$new.body"' EXIT
{
    cat <<'END'
# Compatibility

What the tests show: one table for each host, a column for each engine (and, where there are several, how it was told to manage cgroups, who ran it, or by which
shim), a row for each feature. A number is how many tests passed; `n not here` are those whose subject the host does not have, `n known` those that fail and are
listed with the reason, and **n fail** is what it says. Made by `make compatibility` of the results of `make test` and `make test-vm`
(of its machines, user-mode-linux runs all but what it cannot, and QEMU, `tcg`, that alone);
`integration/features.tsv` says which tests are about which feature.
END
    awk -F '\t' '
        FNR == NR { if (!/^#/ && NF == 2) { feature[++features] = $1; pattern[features] = $2 } next }
        {
            program = $3; sub(/-.*/, "", program)
            column = ($1 == "runtime" ? "orlop" : $1) ($3 == program || $1 == "runtime" ? "" : ", " substr($3, length(program) + 2))
            if ($1 != "runtime" && !index($1, program)) column = column ", " program
            for (f = 1; f <= features && (program " " $4) !~ pattern[f]; f++);
            # The last one is for what has no engine.
            if (f > features || (f == features && $1 != "runtime")) { print "no feature for: " program " " $4 > "/dev/stderr"; bad = 1; exit 1 }
            if (!(($2, column) in known)) { known[$2, column]; order[$2] = order[$2] (order[$2] == "" ? "" : "\t") column }
            if (!($2 in host)) { host[$2]; hosts[++n] = $2 }
            used[$2, f]; count[$2, column, f, $5]++
        }
        END {
            if (bad) exit 1
            for (h = 1; h <= n; h++) {
                columns = split(order[hosts[h]], name, "\t")
                printf "\n## %s\n\n| |", hosts[h]
                for (c = 1; c <= columns; c++) printf " %s |", name[c]
                printf "\n|---|"
                for (c = 1; c <= columns; c++) printf "---|"
                print ""
                for (f = 1; f <= features; f++) {
                    if (!((hosts[h], f) in used)) continue
                    printf "| %s |", feature[f]
                    for (c = 1; c <= columns; c++) printf " %s |", cell(hosts[h], name[c], f)
                    print ""
                }
            }
        }
        function cell(host, column, f,   text, ok, ignored, failed, known) {
            ok = count[host, column, f, "ok"]; ignored = count[host, column, f, "ignored"]
            failed = count[host, column, f, "FAILED"]; known = count[host, column, f, "known"]
            if (ok) text = ok
            if (known) text = text (text == "" ? "" : ", ") known " known"
            if (ignored) text = text (text == "" ? "" : ", ") ignored " not here"
            if (failed) text = text (text == "" ? "" : ", ") "**" failed " fail**"
            return text
        }' integration/features.tsv "${results[@]}"
} >"$new.body"
{
    head -n 1 "$new.body"
    echo "<!-- sum: $(sum_of <"$new.body") -->"
    tail -n +2 "$new.body"
} >"$new"
install -m 644 "$new" "$page"
cat "$page"
