# The cuda target without a GPU: artifacts for three generations, their kernels run in the interpreter against the reference.
# CUDA_FULL=1 takes all node tests and all models. ZENITH_NVRTC may name the library.
. tests/suites/lib.sh

probe=$out/probe.cubin
has_nvrtc() { "$ZENITHC" "$digits" --target=cuda --arch=sm_80 -o "$probe" --verify=off; }
reduced() { "$ZENITHC" "$1" --target=$2 --precision="$3" -o "$out/reduced.so"; }
one() { "$ZENITHC" "$1" --target=cuda --arch="$2" --cache "$out/cache" -o "$out/$3.so" $4; }
exports() { nm -D "$1" | grep -q ' zn_device_main$' && ! nm -D "$1" | grep -q ' U cu[A-Z]'; }
without_nvrtc() { # a build without CUDA says what is missing
  ! said=$(ZENITH_NVRTC=/nowhere/libnvrtc.so "$ZENITHC" "$digits" --target=cuda -o "$out/no.so" 2>&1) && grep -q NVRTC <<< "$said"
}
lacks() { ! grep -q "$1" "$2"; }
# The kernels of a model, checked by the interpreter: needs no NVRTC.
kernel_ir() { "$ZENITHC" "$1" --target=cuda --arch=sm_90a -o "$out/kernels.zk" "${@:2}"; }
nodes() {
  "$ZENITHC" check "$@" --target=cuda --emulate --fix-shapes -O2 --jobs "$JOBS" --xfail tests/conformance/xfail-cpu.txt
}
# What the host alone runs, through the runtime object and a driver that does everything but run kernels; models of two parts.
on_host=(string_{concat,concat_utf8,split_basic,split_empty_tensor} sequence_{insert_at_back,model1,model4,model8} if_{opt,seq}
  split_to_sequence_1 optional_{get_element_optional_sequence,has_element_optional_input} equal_string_broadcast)
mixed=("${on_host[@]}" loop13_seq loop16_seq_none sequence_map_{add_2_sequences,extract_shapes}
  tfidfvectorizer_tf_only_bigrams_skip0 optional_get_element_tensor
  range_float_type_positive_delta_expanded ai_onnx_ml_label_encoder_string_int)
fake_driver() {
  mkdir -p "$out/fake" && ${CC:-cc} -std=c11 -O1 -shared -fPIC -o "$out/fake/libcuda.so.1" tests/cuda/fake_driver.c
}
says_host() {
  "$ZENITHC" "$B/onnx-data/test_string_concat/model.onnx" --target=cuda -o "$out/s.so" 2>&1 |
    grep -q 'run on the host: StringConcat 2'
}
shares() { # memory of the caller's on either side
  "$ZENITHC" tests/cuda/host_parts.zg --target=cuda --verify=off -o "$out/parts.so" &&
    ${CC:-cc} -std=c11 -O1 -I. -o "$out/share_check" tests/cuda/share_check.c -ldl &&
    LD_LIBRARY_PATH=$out/fake "$out/share_check" "$out/parts.so"
}
# If, Loop and Scan that the device decides: in the interpreter, and, with NVRTC, what is recorded for them, step by step.
flows=(grows steps rows either)
flow_ir() { kernel_ir "tests/cuda/flow/$1.zg" && grep -q "= flow.bool" "$out/kernels.zk"; }
# -O1: the driver without kernels knows those that count turns by their names, as they are before calls join.
flow_artifact() { "$ZENITHC" "tests/cuda/flow/$1.zg" --target=cuda --arch=sm_90a -O1 --verify=off -o "$out/$1.so"; }
follows() {
  ${CC:-cc} -std=c11 -O1 -I. -o "$out/flow_check" tests/cuda/flow_check.c -ldl &&
    LD_LIBRARY_PATH=$out/fake "$out/flow_check" "$out"/{rows,either,grows,steps}.so
}
host_cases() {
  LD_LIBRARY_PATH=$out/fake "$ZENITHC" check "${on_host[@]/#/$B/onnx-data/test_}" --target=cuda --jobs "$JOBS"
}
mixed_cases() {
  "$ZENITHC" check "${mixed[@]/#/$B/onnx-data/test_}" --target=cuda --emulate --no-build --jobs "$JOBS"
}
models=("$MODELS/mnist-8" "$MODELS/cifar-cnn" "$MODELS/mlperf-tiny-kws-int8")
cases=("$B"/onnx-data/test_{softmax_axis_1,layer_normalization_2d_axis1,matmul_2d,basic_conv_with_padding,topk}/
  "$B"/onnx-data/test_{gather_0,lstm_defaults,loop11,nonzero_example}/)
[ -n "$CUDA_FULL" ] && models=("$MODELS"/*/) cases=("$B"/onnx-data/*/)
{
  try "says that NVRTC is missing" without_nvrtc
  try "a driver without kernels" fake_driver
  for m in "${flows[@]}"; do try "$m: the device decides" flow_ir "$m"; done
  if [ -d "$B/onnx-data/test_string_concat" ]; then
    try "says what runs on the host" says_host
    try "memory on either side" shares
    host_cases | grep -v ' passed, '
    mixed_cases | grep -v ' passed, '
  else echo "skip host kernels: no data"
  fi
  for p in fp16 bf16; do try "digits as $p on cpu" reduced "$digits" cpu $p; done
  for m in tests/cuda/kernels/*.zg; do
    name=$(basename "$m" .zg)
    for p in model tf32 fp16 bf16; do try "$name's kernels, $p" kernel_ir "$m" --precision=$p; done
    case $name in
    keys) kernel_ir "$m" > "$out/keys.log" 2>&1
          try "$name: attention of f32 is one kernel" grep -q "_attention" "$out/kernels.zk" ;;
    long) kernel_ir "$m" > "$out/long.log" 2>&1
          try "$name: copies under way while threads multiply" grep -q asynccopy "$out/kernels.zk" ;;
    block) try "$name: its attention is one kernel" grep -q "_attention" "$out/kernels.zk" ;;
    wide) try "$name: four warps multiply together, over the end of a step" grep -q "groupwait" "$out/kernels.zk" ;;
    branches) try "$name: several in one call" grep -q "_and_[2-9]" "$out/kernels.zk" ;;
    reduce) try "$name: long rows in parts" grep -q "_reduce_part" "$out/kernels.zk" ;;
    rows) try "$name: lanes along the depth" grep -q "lanexor" "$out/kernels.zk" ;;
    images) try "$name: a border for few channels" grep -q "_conv_border" "$out/kernels.zk"
            try "$name: channels last to the end" lacks "_Identity" "$out/kernels.zk" ;;
    esac
  done
  try "large's kernels, fp16" kernel_ir tests/cuda/large.zg --precision=fp16
  try "large: weights in bulk, signals between producers and consumers" grep -q "bulkcopy" "$out/kernels.zk"
  try "bytes: channels last, copied under way" kernel_ir tests/cuda/bytes.zg
  try "bytes: from shared memory to matrix units" grep -q "ldmatrix" "$out/kernels.zk"
  try "bytes_wide's kernels" kernel_ir tests/cuda/bytes_wide.zg
  try "bytes_wide: four warps multiply together" grep -q "groupmma.i32" "$out/kernels.zk"
  for m in mlperf-tiny-kws-int8 micro-kws-qoperator; do # bytes on matrix units
    if [ -f "$MODELS/$m/model.onnx" ]; then
      try "$m's kernels" kernel_ir "$MODELS/$m/model.onnx"
      try "$m uses matrix units" grep -q "= mma.i32x4" "$out/kernels.zk"
    else echo "skip $m's kernels: no $MODELS/$m"
    fi
  done
  bert=$MODELS/tinybert/model.onnx
  if [ -f "$bert" ]; then # joined products, one attention kernel, asynchronous tiles, sums left to the normalisation behind
    for p in model tf32 fp16 bf16; do
      try "tinybert's kernels, $p" kernel_ir "$bert" --precision=$p --dim=batch=1 --dim=sequence=16
    done
  else
    echo "skip tinybert's kernels: no $bert"
  fi
  for d in "$B"/onnx-data/test_attention_{4d,4d_causal,3d,4d_gqa,4d_attn_mask}; do
    [ -d "$d" ] && for p in model fp16; do try "${d##*/}'s kernels, $p" kernel_ir "$d/model.onnx" --precision=$p; done
  done
  if has_nvrtc > "$out/probe.log" 2>&1; then
    for a in sm_80 sm_90a sm_120; do try "digits for $a" one "$digits" $a digits-$a; done
    for p in fp16 bf16; do try "digits as $p, matrix units" reduced "$digits" "cuda --arch=sm_80" $p; done
    for m in "${flows[@]}"; do try "$m" flow_artifact "$m"; done
    try "conditions in recorded runs" follows
    try "exports the device interface, needs no CUDA symbol" exports "$out/digits-sm_80.so"
    for m in "${models[@]}"; do
      name=$(basename "$m")
      if [ -f "$m/model.onnx" ]; then try "$name" one "$m/model.onnx" sm_90a "$name" "${CUDA_FULL:+--verify=off}"
      else echo "skip $name: no $m"; fi
    done
    for d in "${cases[@]}"; do [ -d "$d" ] && echo "$d"; done > "$out/cases"
    if [ ! -s "$out/cases" ]; then echo "skip node tests: no data"
    else nodes $(cat "$out/cases") --arch=sm_90a | grep -v ' passed, '; fi
  else
    echo "skip kernels: $(head -1 "$out/probe.log")"
  fi
} | tally
