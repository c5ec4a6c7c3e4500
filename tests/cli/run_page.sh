#!/bin/sh
# run_page.sh ZENITHC MAKE_MODEL CLI.md zenithc.1: runs every example of the page, then checks errors, exit codes and
# what is left behind.
set -u
zenithc=$(realpath "$1"); make_model=$(realpath "$2"); page=$(realpath "$3"); man=$(realpath "$4")
work=$(mktemp -d); tmp=$work/tmp; mkdir "$tmp" "$work/bin"
trap 'rm -rf "$work"' EXIT
ln -s "$zenithc" "$work/bin/zenithc"
PATH=$work/bin:$PATH; TMPDIR=$tmp; export PATH TMPDIR
mkdir "$work/d"; cd "$work" && "$make_model" . || exit 1
failed=0; count=0
fail() { echo "FAIL $*"; failed=$((failed + 1)); }

# expect CODE PATTERN COMMAND...: exit code, and a line of the output that matches
expect() {
  want=$1; pattern=$2; shift 2; count=$((count + 1))
  "$@" > out.txt 2>&1; got=$?
  [ $got -eq "$want" ] || { fail "$*: exit $got, expected $want"; sed 's/^/    /' out.txt | head -5; return; }
  grep -qE -e "$pattern" out.txt || { fail "$*: no line matches $pattern"; sed 's/^/    /' out.txt | head -5; }
}

# ---- the page is current, and its examples work ----
zenithc help --markdown | cmp -s - "$page" || fail "docs/CLI.md is stale: make cli-docs"
zenithc help --man | cmp -s - "$man" || fail "docs/zenithc.1 is stale: make cli-docs"
sed -n '/^```$/,/^```$/p' "$page" | grep '^zenithc ' > examples.txt
while read -r line; do
  count=$((count + 1))
  sh -c "$line" > out.txt 2>&1 || { fail "example: $line (exit $?)"; sed 's/^/    /' out.txt | head -5; }
done < examples.txt
[ -s out/y.npy ] || fail "run --output-dir wrote no out/y.npy"
grep -q '"verdict":.*"pass"' report.json || fail "report.json has no verdict"
grep -q '^zg 1' model.zg || fail "model.zg is not graph text"

# ---- configuration file ----
expect 0 'yaml.so: [0-9]+ bytes' zenithc --config zenith.yaml
expect 0 'bytes' zenithc --config zenith.yaml -o other.so
[ -s other.so ] || fail "the command line does not win over the configuration"
printf 'targt: cpu\n' > bad.yaml
expect 2 'bad.yaml:1: unknown option' zenithc --config bad.yaml model.onnx -o z.so
expect 2 'did you mean target' zenithc --config bad.yaml model.onnx -o z.so

printf 'target: cpu\nsamples: many\n' > bad.yaml
expect 2 'bad.yaml:2' zenithc --config bad.yaml model.onnx -o z.so
expect 2 'a binary file, and text is expected' zenithc --config other.so model.onnx -o z.so
printf '\001\002' > bad.yaml
expect 2 'takes YAML text' zenithc --config bad.yaml model.onnx -o z.so

# ---- names of the interface ----
expect 0 '^y: f32' zenithc run model.onnx --precision=fp16 --random 1

# ---- wrong sizes ----
cat > empty.zg <<'END'
zg 1
graph @main(%x: f32[0,2], %i: i64[3]) -> (%y) {
  %y: ?[*] = Gather(%x, %i)
}
END
expect 1 'code 3' zenithc run empty.zg --random 1
expect 2 'is for ONNX models' zenithc run empty.zg --shape x=1x2

# ---- wrong usage ----
expect 2 'usage:' zenithc
expect 2 'did you mean --target\?' zenithc model.onnx --targt=cpu -o z.so
expect 2 'did you mean `zenithc check`' zenithc chekc
expect 2 'unknown target' zenithc model.onnx --target=cuda9 -o z.so
expect 2 'it writes \.so' zenithc model.onnx -o z.exe
expect 2 '--target=c writes \.c' zenithc model.onnx -o z.c
expect 2 'needs a value' zenithc model.onnx -o
expect 2 'expected a size' zenithc model.onnx --max-ram=lots -o z.so
expect 2 'does not belong' zenithc model.onnx --runs 3 -o z.so
expect 2 'no model given' zenithc -o z.so
expect 2 'no output given' zenithc model.onnx
expect 2 'not available' zenithc model.onnx --precision=int8 -o z.so
expect 2 'No such file' zenithc missing.onnx -o z.so
expect 2 "there is no folder 'nowhere'" zenithc model.onnx -o nowhere/z.so
expect 2 "no input 'nope'" zenithc run model.onnx --input nope=x.pb
expect 2 'holds no reference' zenithc verify model.so
expect 2 '^missing.onnx: ' zenithc verify model.so --reference missing.onnx
expect 2 'a whole number above 0' zenithc bench model.so --runs 0
expect 2 'its inputs: x' zenithc model.onnx --shape nope=1x2 -o z.so
expect 2 "dimensions: " zenithc model.onnx --dim nope=1 -o z.so
echo 'not a model' > text.onnx
expect 1 'this is text' zenithc text.onnx -o z.so
expect 1 'Git LFS' sh -c 'echo "version https://git-lfs.github.com/spec/v1" > lfs.onnx; zenithc lfs.onnx -o z.so'
expect 1 'did you mean Conv' zenithc ops Conw
expect 1 'did you mean' zenithc ops Conv Gelv
expect 2 'a folder is expected' zenithc run model.onnx --output-dir model.onnx
expect 2 'a folder is expected' zenithc model.onnx --cache model.onnx -o z.so
expect 2 'a folder is expected' zenithc check . --artifacts model.onnx
expect 2 'this is a folder' zenithc model.onnx -o .
expect 2 'a name is missing' zenithc model.onnx --arch=x86-64-v3, -o z.so
expect 2 'no command is called' zenithc help foo
expect 2 'expected no argument' zenithc targets cpu
expect 2 'unknown pass' zenithc model.onnx --stop-after=foo -o z.zg
expect 2 'no pass has the letter' zenithc model.onnx -dQ -o z.so
zenithc ops Conw 2> /dev/null | grep . && fail "ops prints a table of nothing"
expect 2 'neither do the folders' zenithc check out
expect 0 '0\.1\.0' zenithc --version

# ---- numbers out of range ----
expect 2 'a number of threads, 1 to 4096' zenithc bench model.so --threads 100000
expect 2 'a number of threads, 1 to 4096' zenithc run model.so --threads 5000000000
expect 0 '^y: f32' zenithc run model.so --threads 2
expect 2 'below 2' zenithc bench model.so --runs 5000000000000
expect 2 'a whole number above 0' zenithc bench model.so --runs -1
expect 0 'the timed ones are the most' zenithc bench model.so --warmup 99999999999 --runs 1
expect 2 'a number above 0' zenithc check tests --timeout 0
expect 2 'not a time above 0' zenithc tune model.onnx --tune z.tune --budget 0

# ---- files that cannot be read or replaced: what was there stays ----
expect 2 'No such file' zenithc tune model.onnx --tune nowhere/z.tune --budget 1s
cp model.onnx self.onnx
expect 2 'is the model itself' zenithc self.onnx --emit=so -o self.onnx
expect 2 'is the model itself' zenithc self.onnx -o z.so --report ./self.onnx
cmp -s model.onnx self.onnx || fail "the model was overwritten"
mkfifo pipe.so
ln -s pipe.so link.so
expect 2 'a device or pipe' zenithc model.onnx -o pipe.so
expect 2 'a device or pipe' zenithc model.onnx -o link.so
expect 2 'a device or pipe' timeout 20 zenithc pipe.so -o z.so
[ -p pipe.so ] || fail "a pipe was replaced"
mkdir store && ln -sf store/kept link.so && : > store/kept
expect 0 'bytes' zenithc model.onnx -o link.so
expect 0 '^y: f32' zenithc run link.so
[ -L link.so ] && [ -s store/kept ] || fail "a link was replaced, and not its file"
dd if=model.so of=cut.so bs=1000 count=2 2> dd.txt
expect 2 'cut short' zenithc run cut.so
: > empty.onnx
cp weights.bin weights.bin.kept
: > empty.npz
expect 1 'the file is empty' zenithc empty.onnx -o z.so
expect 1 'empty.npz: not a readable .npz archive: [A-Z]' zenithc run model.onnx --input x=empty.npz
expect 2 'belongs to the model' zenithc external.onnx --emit=so -o weights.bin
cmp -s weights.bin.kept weights.bin || fail "external data was replaced"
ln weights.bin net.h # as a .bin beside a .ll or .c may be
expect 2 'would replace net.h' zenithc external.onnx -o net.a
[ -e net.a ] && fail "a refused output was written in part"
mv weights.bin aside
expect 2 'copy it too' zenithc external.onnx -o z.so
: > weights.bin
expect 1 'ends behind' zenithc external.onnx -o z.so
expect 1 'copy both again' zenithc external.onnx -o z.so
mv aside weights.bin
expect 0 'bytes' zenithc external.onnx -o external.so
for f in so o a s ll zk; do # as on a full disk
  expect 2 'File too large' sh -c "trap '' XFSZ; ulimit -f 1; exec zenithc model.onnx -o full.$f"
done
expect 2 'File too large' sh -c "trap '' XFSZ; ulimit -f 1; exec zenithc model.onnx --target=c -o full.c"
[ -z "$(ls | grep '^full')" ] || fail "half-written: $(ls | grep '^full')"
for i in 1 2 3; do zenithc model.onnx --quiet --name same -o twice.so & done
wait
zenithc model.onnx --quiet --name same -o d/twice.so
cmp -s d/twice.so twice.so || fail "one output written three times at once differs"

# ---- models that fail ----
expect 1 "Frobnicate" zenithc unsupported.onnx -o z.so
expect 1 'needs [0-9]+ bytes of RAM, --max-ram allows 16' zenithc model.onnx --dim batch=1 --max-ram=16 -o z.so
cat > blocks.zg << 'END'
zg 1
const $w1 f32[16,16,3,3] = rand(1, -0.1, 0.1)
const $w2 f32[16,16,3,3] = rand(2, -0.1, 0.1)
const $w3 f32[64,16,1,1] = rand(3, -0.3, 0.3)
const $w4 f32[64,1,3,3] = rand(4, -0.3, 0.3)
const $w5 f32[16,64,1,1] = rand(5, -0.3, 0.3)
const $axes i64[2] = [2, 3]
graph @main(%x: f32[1,16,16,16]) -> (%y) {
  %a: ?[*] = Relu(%x)
  %b: ?[*] = Conv(%a, $w1) {pads=[1,1,1,1]}
  %c: ?[*] = Relu(%b)
  %d: ?[*] = Conv(%c, $w2) {pads=[1,1,1,1]}
  %e: ?[*] = Add(%a, %d)
  %f: ?[*] = Conv(%e, $w3)
  %g: ?[*] = Conv(%f, $w4) {group=64, strides=[2,2], pads=[1,1,1,1]}
  %h: ?[*] = Conv(%g, $w5)
  %y: ?[*] = ReduceMean(%h, $axes)
}
END
expect 0 'workspace 9[0-9]{4},' zenithc blocks.zg -o blocks.so
expect 0 'workspace 7[0-9]{4},' zenithc blocks.zg --max-ram=100K -o blocks.so
expect 0 'workspace 5[0-9]{4},' zenithc blocks.zg --max-ram=72K -o blocks.so
expect 0 'workspace 4[0-9]{4},' zenithc blocks.zg --max-ram=65600 -o blocks.so
expect 1 'needs [0-9]+ bytes of RAM, --max-ram allows 40960' zenithc blocks.zg --max-ram=40K -o blocks2.so
expect 1 'is the least that works' zenithc blocks.zg --max-ram=40K -o blocks2.so
expect 1 'allows 100' zenithc model.onnx --max-flash=100 -o z.so
expect 1 'symbolic' zenithc model.onnx --max-ram=1K -o z.so
expect 1 'infeasible' zenithc model.onnx --tolerance=1e-12 -o z.so
expect 4 'infeasible' zenithc verify model.onnx --tolerance=1e-12
[ -e z.so ] && fail "a failed compilation wrote its output"
expect 1 'FAIL wrong: test_data_set_0: output y\[0,1\]: got' zenithc check bad
expect 0 'xfail wrong' sh -c 'echo "wrong known" > x.txt; zenithc check bad --xfail x.txt'
expect 1 'expected failure' sh -c 'echo "affine known" > x.txt; zenithc check tests --xfail x.txt'
expect 0 '1 passed, 0 failed, 1 skipped' sh -c 'echo "aff*" > x.txt; zenithc check tests --skip x.txt'
expect 0 '1 passed, 0 failed' zenithc check bad --spread 0.1

# ---- one artifact at several sizes: a single row has a kernel of its own ----
for n in 1 2 3 8; do
  expect 0 'pass: eta' zenithc verify model.so --reference model.onnx --dim batch=$n
done

# ---- tuning ----
expect 0 '[0-9]+ trials, [0-9]+ of [1-9][0-9]* kinds of kernels improved' zenithc tune model.onnx --tune fresh.tune --budget 2s
expect 0 '^0 trials' zenithc tune model.onnx --tune fresh.tune --budget 0.001
[ "$(ls fresh.tune*)" = fresh.tune ] || fail "tune left files beside the database: $(ls fresh.tune*)"
chmod 444 fresh.tune
expect 0 'bytes' zenithc model.onnx --tune fresh.tune --name same -o t1.so
expect 0 'bytes' zenithc model.onnx --tune fresh.tune --name same -O3 -o t2.so
zenithc model.onnx --quiet --tune fresh.tune --name same -o d/t1.so
cmp -s t1.so d/t1.so || fail "two builds with one tuning database differ"
expect 0 'median_ms' zenithc bench model.onnx --tune fresh.tune --runs 5
chmod 644 fresh.tune
expect 0 'improved with 2 threads' zenithc tune model.onnx --tune fresh.tune --budget 2s --threads 2
expect 2 'help: --tune-threads=2' zenithc model.onnx --tune fresh.tune -o z.so
expect 0 'bytes' zenithc model.onnx --tune fresh.tune --tune-threads=2 --name same -o t2.so
expect 2 'nothing was measured with 3 threads' zenithc model.onnx --tune fresh.tune --tune-threads=3 -o z.so
expect 0 'median_ms' zenithc bench model.onnx --tune fresh.tune --runs 5 --threads 2
expect 2 'chooses from a tuning database' zenithc model.onnx --tune-threads=2 -o z.so
expect 2 '`zenithc tune MODEL' zenithc model.onnx --tune missing.tune -o z.so
expect 2 'where should' zenithc tune model.onnx
expect 2 'is not a time' zenithc tune model.onnx --tune fresh.tune --budget soon
expect 2 'ask no tuning database' zenithc tune model.onnx --tune fresh.tune -O1
expect 2 'chooses from a tuning database' zenithc model.onnx --tune-cpu=zen -o z.so
expect 2 "nothing was measured on 'zen'" zenithc model.onnx --tune fresh.tune --tune-cpu=zen -o z.so

# ---- the cache: the same bytes, from whatever it holds ----
mkdir -p plain cold warm
for f in so o a; do
  zenithc model.onnx --quiet --name same -o plain/c.$f
  zenithc model.onnx --quiet --name same --cache kept -o cold/c.$f &
  zenithc model.onnx --quiet --name same --cache kept -o warm/c.$f & # both write at once
  wait
  cmp -s plain/c.$f cold/c.$f && cmp -s plain/c.$f warm/c.$f || fail "cached .$f differs"
done
n=$(ls kept | wc -l)
[ "$n" = "$(ls kept | grep -cE '^[0-9a-f]{64}\.o$')" ] && [ "$n" -ge 2 ] || fail "in the cache: $(ls kept)"
for k in kept/*; do printf 'half' > "$k"; done
zenithc model.onnx --quiet --name same --cache kept -o warm/c.so
cmp -s plain/c.so warm/c.so || fail "a damaged cache changes the artifact"
zenithc model.onnx --quiet --name same --cache kept --arch=x86-64-v2 -o warm/c.so
cmp -s plain/c.so warm/c.so && fail "the cache confuses two architectures"
[ "$(ls kept | wc -l)" -gt "$n" ] || fail "another architecture was not cached"
expect 0 'cannot be written' zenithc model.onnx --cache nowhere/kept -o z2.so
expect 2 'keeps nothing' zenithc model.onnx --target=c --cache kept -o z.c

# ---- properties ----
zenithc model.onnx --quiet --name same -o r1.so && zenithc model.onnx --quiet --name same -o d/r1.so
cmp -s r1.so d/r1.so || fail "two builds differ"
cat > wide.zg << 'END'
zg 1
const $w f32[512,600] = rand(1, -0.1, 0.1)
graph @main(%x: f32[1,512]) -> (%y) {
  %y: ?[*] = MatMul(%x, $w)
}
END
for f in ll s; do # large constants of a .ll are in a file beside it
  language=$([ $f = s ] && echo assembler || echo ir)
  zenithc wide.zg --quiet --name same -o wide.$f && zenithc wide.zg --quiet --name same -o d/wide.$f
  cmp -s wide.$f d/wide.$f || fail "two builds of .$f with large constants differ"
  expect 0 'made' sh -c "clang-19 -Wno-override-module -c -x $language wide.$f -o wide.o && echo made"
  [ "$(wc -c < wide.o)" -gt 1200000 ] || fail "wide.$f without its constants"
done
strings -a model.so 2>/dev/null | grep -q 'verify=self-check' || fail "no provenance in the artifact"
zenithc model.onnx --verify=off --quiet -o off.so
strings -a off.so | grep -q 'verify=off' || fail "verify=off is not recorded"
expect 0 'median_ms' zenithc bench model.so --runs 5 --threads 2
expect 0 '^peaks on 2 threads: [1-9][0-9.]* GFLOP/s .* [0-9.]* GB/s' zenithc bench model.onnx --runs 5 --threads 2 --profile
expect 0 '[0-9]% +(compute|memory|cache|latency)  [A-Z]' zenithc bench model.onnx --runs 5 --profile --dim batch=4
expect 0 'counted when the model is given' zenithc bench model.so --runs 5 --profile
zenithc help compile | awk 'length > 130 { bad = 1 } END { exit bad }' || fail "help is too wide"
zenithc ops | true
[ -z "$(ls -A "$tmp")" ] || fail "left in TMPDIR: $(ls -A "$tmp")"
[ -z "$(ls -A . | grep '^\.zenithc')" ] || fail "left beside the output: $(ls -A . | grep '^\.zenithc')"

echo "$((count - failed)) passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
