# Commands in the documentation: every line of a ```sh block of README.md and docs/*.md must succeed, in order, in a folder
# that holds model.onnx (the digit classifier) and links to examples/ and runtime/. ``` blocks without `sh` are not run.
. tests/suites/lib.sh

page() { # one page in a folder of its own
  local name=${1##*/} dir line
  dir=$out/${name%.md}
  rm -rf "$dir" && mkdir -p "$dir" && cd "$dir" || return
  cp "$digits" model.onnx
  ln -s "$ROOT/examples" "$ROOT/runtime" "$ROOT/tests" "$ROOT/docs" .
  PATH=$B:$PATH
  while IFS= read -r line; do
    if said=$(eval "$line" 2>&1 < /dev/null); then
      echo "ok $name: $line"
    else
      echo "FAIL $name: $line: $(tail -2 <<< "$said" | tr '\n' ' ')"
    fi
  done
}
{
  "$B/zenithc" ops --markdown > "$out/OPS.md"
  try "docs/OPS.md is up to date (make ops-docs)" cmp "$out/OPS.md" docs/OPS.md
for md in README.md docs/*.md; do
  awk '/^```sh$/ { on = 1; next } /^```/ { on = 0 } on && NF && !/^ *#/' "$md" |
    sed -e ':a' -e '/\\$/N; s/ *\\\n */ /; ta' | (page "$md")
done
} | tally
