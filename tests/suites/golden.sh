# Golden tests: text in, passes, text out (tests/golden/*/*.zg).
. tests/suites/lib.sh

files=(tests/golden/*.zg tests/golden/*/*.zg)
for f in "${files[@]}"; do
  [ -f "$f" ] || continue
  try "$f" "$B/golden/run_golden" "$f"
done | tally
