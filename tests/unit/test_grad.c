/* Gradient against numeric differentiation, with the evaluator in double precision: each case once with its sizes as numbers and
 * once with symbols in their place, so that no rule relies on a size. What is differentiated is the sum of the squares of %v. */
#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "zenithc/eval/eval.h"
#include "zenithc/ops/grad.h"

enum { MAX_VARS = 4 };
typedef struct scenario {
  const char *consts, *vars; /* "x: f64[2,3], w: f64[3]" */
  const char *body; /* statements, the last of them computes %v */
  double lo, hi; /* of the variables; 0, 0: -1 .. 1 */
} scenario;

static const scenario cases[] = {
    /* elementwise, through their formulas */
    {"", "x: f64[2,3], w: f64[3]", "%a = Add(%x, %w); %b = Mul(%a, %x); %v = Sub(%b, %w)", 0, 0},
    {"", "x: f64[2,1,3], w: f64[4,1]", "%a = Div(%x, %w); %v = Neg(%a)", 0.5, 2},
    {"", "x: f64[5], w: f64[5]", "%v = Pow(%x, %w)", 0.5, 2},
    {"const $e i64[] = [3]\n", "x: f64[5]", "%v = Pow(%x, $e)", 0, 0},
    {"", "x: f64[6]", "%a = Exp(%x); %b = Log(%a); %c = Sqrt(%a); %v = Add(%b, %c)", 0, 0},
    {"", "x: f64[6]", "%a = Sin(%x); %b = Cos(%x); %c = Tan(%x); %v = Sum(%a, %b, %c)", 0, 0},
    {"", "x: f64[6]", "%a = Asin(%x); %b = Acos(%x); %c = Atan(%x); %v = Mean(%a, %b, %c)", -0.9,
     0.9},
    {"", "x: f64[6]", "%a = Sinh(%x); %b = Cosh(%x); %c = Tanh(%x); %v = Max(%a, %b, %c)", 0, 0},
    {"", "x: f64[6]", "%a = Asinh(%x); %b = Acosh(%x); %v = Min(%a, %b)", 1.1, 3},
    {"", "x: f64[6]", "%a = Atanh(%x); %b = Erf(%x); %v = Mul(%a, %b)", -0.9, 0.9},
    {"", "x: f64[9]", "%a = Sigmoid(%x); %b = Softplus(%x); %c = Mish(%x); %v = Sum(%a, %b, %c)",
     -3, 3},
    {"", "x: f64[9]", "%a = Gelu(%x); %b = Gelu(%x) {approximate=\"tanh\"}; %v = Add(%a, %b)", -3,
     3},
    {"", "x: f64[9]",
     "%a = Elu(%x); %b = Selu(%x); %c = Celu(%x) {alpha=0.5}; %v = Sum(%a, %b, %c)", -3, 3},
    {"", "x: f64[9], w: f64[1]",
     "%a = PRelu(%x, %w); %b = LeakyRelu(%x); %c = Relu(%x); %v = Sum(%a, %b, %c)", -3, 3},
    {"", "x: f64[9]",
     "%a = HardSwish(%x); %b = HardSigmoid(%x); %c = Swish(%x) {alpha=0.7}; %v = Sum(%a, %b, %c)",
     -2.9, 2.9},
    {"", "x: f64[9]",
     "%a = Softsign(%x); %b = ThresholdedRelu(%x); %c = Shrink(%x); %v = Sum(%a, %b, %c)", -3, 3},
    {"const $m f64[] = [-0.5]\n", "x: f64[9], w: f64[]",
     "%a = Clip(%x, $m, %w); %b = Abs(%x); %v = Mul(%a, %b)", 0, 0},
    {"", "x: f64[7], w: f64[7]", "%v = Mod(%x, %w) {fmod=1}", 0.6, 5},
    {"const $z f64[] = [0]\n", "x: f64[8], w: f64[]",
     "%c = Greater(%x, $z); %s = Sqrt(%x); %v = Where(%c, %s, %w)", 0.1, 4},
    {"", "x: f64[6]", "%a = Floor(%x); %b = Reciprocal(%x); %v = Add(%a, %b)", 0.2, 0.9},
    /* products */
    {"", "x: f64[2,3], w: f64[3,4]", "%v = MatMul(%x, %w)", 0, 0},
    {"", "x: f64[5,1,2,3], w: f64[4,3,2]", "%v = MatMul(%x, %w)", 0, 0},
    {"", "x: f64[3], w: f64[2,3,4]", "%v = MatMul(%x, %w)", 0, 0},
    {"", "x: f64[2,4,3], w: f64[3]", "%v = MatMul(%x, %w)", 0, 0},
    {"", "x: f64[3], w: f64[3]", "%v = MatMul(%x, %w)", 0, 0},
    {"", "x: f64[2,3], w: f64[3,4], b: f64[4]", "%v = Gemm(%x, %w, %b) {alpha=0.5, beta=2.0}", 0,
     0},
    {"", "x: f64[3,2], w: f64[4,3], b: f64[2,1]", "%v = Gemm(%x, %w, %b) {transA=1, transB=1}", 0,
     0},
    {"", "x: f64[2,3,4], w: f64[5,4]", "%v = Einsum(%x, %w) {equation=\"abc,dc->abd\"}", 0, 0},
    {"", "x: f64[2,3,4], w: f64[3,5,2]", "%v = Einsum(%x, %w) {equation=\"...ab , acd\"}", 0, 0},
    {"", "x: f64[2,3], w: f64[3,4], b: f64[4,2]",
     "%v = Einsum(%x, %w, %b) {equation=\"ij,jk,kl->i\"}", 0, 0},
    /* convolutions and pools */
    {"", "x: f64[2,3,7], w: f64[4,3,3], b: f64[4]",
     "%v = Conv(%x, %w, %b) {pads=[1, 0], strides=[2]}", 0, 0},
    {"", "x: f64[2,4,6,7], w: f64[6,2,3,2], b: f64[6]",
     "%v = Conv(%x, %w, %b) {group=2, pads=[1, 1, 2, 0], strides=[2, 3], dilations=[1, 2]}", 0, 0},
    {"", "x: f64[2,3,5,5], w: f64[3,1,3,3]", "%v = Conv(%x, %w) {group=3, pads=[1, 1, 1, 1]}", 0,
     0},
    {"", "x: f64[2,4,4], w: f64[4,3,3], b: f64[6]",
     "%v = ConvTranspose(%x, %w, %b) {group=2, strides=[2], pads=[1, 0], output_padding=[1]}", 0,
     0},
    {"", "x: f64[1,2,3,4], w: f64[2,3,2,2]",
     "%v = ConvTranspose(%x, %w) {strides=[1, 2], dilations=[2, 1]}", 0, 0},
    {"", "x: f64[2,2,5,6]",
     "%v = MaxPool(%x) {kernel_shape=[2, 3], strides=[2, 2], pads=[0, 1, 1, 1]}", 0, 0},
    {"", "x: f64[2,2,7]", "%v, %i = MaxPool(%x) {kernel_shape=[3], strides=[1], dilations=[2]}", 0,
     0},
    {"", "x: f64[2,2,5,6]",
     "%v = AveragePool(%x) {kernel_shape=[2, 3], strides=[2, 2], pads=[0, 1, 1, 1]}", 0, 0},
    {"", "x: f64[2,2,7]",
     "%v = AveragePool(%x) {kernel_shape=[3], strides=[3], pads=[1, 1], count_include_pad=1}", 0,
     0},
    {"", "x: f64[2,2,8]", "%v = AveragePool(%x) {kernel_shape=[3], strides=[2], ceil_mode=1}", 0,
     0},
    {"", "x: f64[2,3,4,2]", "%a = GlobalAveragePool(%x); %b = GlobalMaxPool(%x); %v = Mul(%a, %b)",
     0, 0},
    /* normalisations */
    {"", "x: f64[2,5]", "%v = Softmax(%x)", 0, 0},
    {"", "x: f64[2,5,3]", "%v = LogSoftmax(%x) {axis=1}", 0, 0},
    {"", "x: f64[3,2,4], w: f64[4], b: f64[4]", "%v = LayerNormalization(%x, %w, %b)", 0, 0},
    {"", "x: f64[3,2,4], w: f64[2,4]", "%v = LayerNormalization(%x, %w) {axis=1}", 0, 0},
    {"", "x: f64[3,4], w: f64[4]", "%v = RMSNormalization(%x, %w)", 0, 0},
    {"", "x: f64[2,3,4], w: f64[3], b: f64[3]", "%v = InstanceNormalization(%x, %w, %b)", 0, 0},
    {"", "x: f64[2,4,3], w: f64[4], b: f64[4]",
     "%v = GroupNormalization(%x, %w, %b) {num_groups=2}", 0, 0},
    {"const $m f64[3] = [0.1, 0.2, 0.3]\nconst $s f64[3] = [1.0, 2.0, 0.5]\n",
     "x: f64[2,3,4], w: f64[3], b: f64[3]", "%v = BatchNormalization(%x, %w, %b, $m, $s)", 0, 0},
    {"", "x: f64[3,5]", "%v = LpNormalization(%x)", 0, 0},
    {"const $t i64[3] = [1, 0, 2]\n", "x: f64[3,4]", "%v = SoftmaxCrossEntropyLoss(%x, $t)", 0, 0},
    {"", "x: f64[2,6]", "%a, %b = Split(%x) {axis=1, num_outputs=2}; %v = SwiGLU(%a, %b)", 0, 0},
    {"", "x: f64[2,2,3,4], w: f64[2,2,5,4], b: f64[2,2,5,4]", "%v = Attention(%x, %w, %b)", 0, 0},
    /* reductions */
    {"const $ax i64[2] = [0, -1]\n", "x: f64[2,3,4]", "%v = ReduceSum(%x, $ax) {keepdims=0}", 0, 0},
    {"const $ax i64[1] = [1]\n", "x: f64[2,3,4]",
     "%a = ReduceMean(%x, $ax); %b = ReduceMax(%x, $ax); %v = Mul(%a, %b)", 0, 0},
    {"", "x: f64[2,3]",
     "%a = ReduceMin(%x); %b = ReduceProd(%x); %c = ReduceMean(%x) {keepdims=0}; %v = Sum(%a, %b, "
     "%c)",
     0.5, 2},
    {"const $ax i64[1] = [1]\n", "x: f64[2,3]",
     "%a = ReduceL2(%x, $ax); %b = ReduceLogSumExp(%x, $ax); %c = ReduceL1(%x, $ax); %e = "
     "ReduceSumSquare(%x, $ax); %v = Sum(%a, %b, %c, %e)",
     0, 0},
    {"const $ax i64[] = [1]\n", "x: f64[2,4]",
     "%a = CumSum(%x, $ax); %b = CumSum(%x, $ax) {reverse=1, exclusive=1}; %v = Mul(%a, %b)", 0, 0},
    /* moves */
    {"const $s i64[2] = [-1, 2]\n", "x: f64[2,3,2]", "%a = Reshape(%x, $s); %v = Transpose(%a)", 0,
     0},
    {"const $ax i64[1] = [1]\n", "x: f64[2,3]",
     "%a = Unsqueeze(%x, $ax); %b = Squeeze(%a, $ax); %c = Flatten(%b) {axis=0}; %v = Exp(%c)", 0,
     0},
    {"", "x: f64[2,3,4]", "%v = Transpose(%x) {perm=[2, 0, 1]}", 0, 0},
    {"", "x: f64[2,3], w: f64[2,4]", "%a = Concat(%x, %w, %x) {axis=-1}; %v = Sin(%a)", 0, 0},
    {"const $s i64[2] = [1, 3]\n", "x: f64[4,2]", "%a, %b = Split(%x, $s); %v = Exp(%b)", 0, 0},
    {"const $f i64[2] = [1, -3]\nconst $t i64[2] = [9, -1]\nconst $ax i64[2] = [0, 2]\n",
     "x: f64[3,2,5]", "%v = Slice(%x, $f, $t, $ax)", 0, 0},
    {"const $f i64[1] = [-1]\nconst $t i64[1] = [-9]\nconst $ax i64[1] = [1]\nconst $s i64[1] = "
     "[-2]\n",
     "x: f64[2,6]", "%v = Slice(%x, $f, $t, $ax, $s)", 0, 0},
    {"const $i i64[2,2] = [0, -1, 1, 0]\n", "x: f64[3,2]", "%v = Gather(%x, $i)", 0, 0},
    {"const $i i64[2,2] = [0, -1, 1, 0]\n", "x: f64[2,3,4]", "%v = Gather(%x, $i) {axis=1}", 0, 0},
    {"const $i i64[] = [1]\n", "x: f64[2,3]", "%v = Gather(%x, $i) {axis=-1}", 0, 0},
    {"const $i i64[2,2] = [0, 2, 1, 1]\n", "x: f64[2,3]", "%v = GatherElements(%x, $i) {axis=1}", 0,
     0},
    {"const $i i64[3,2] = [0, 2, 1, 1, 0, 2]\n", "x: f64[2,3,2]", "%v = GatherND(%x, $i)", 0, 0},
    {"const $i i64[2,2] = [0, 2, 1, 0]\n", "x: f64[2,3], w: f64[2,2]",
     "%v = ScatterElements(%x, $i, %w) {axis=1}", 0, 0},
    {"const $i i64[2,1] = [2, 2]\n", "x: f64[3,2], w: f64[2,2]",
     "%v = ScatterND(%x, $i, %w) {reduction=\"add\"}", 0, 0},
    {"const $k i64[1] = [2]\n", "x: f64[3,4]", "%v, %i = TopK(%x, $k)", 0, 0},
    {"const $p i64[4] = [1, 0, 0, 2]\n", "x: f64[2,3]", "%v = Pad(%x, $p)", 0, 0},
    {"const $p i64[4] = [1, 2, 0, 1]\n", "x: f64[2,3]", "%v = Pad(%x, $p) {mode=\"reflect\"}", 0,
     0},
    {"const $r i64[2] = [2, 3]\n", "x: f64[2,3]", "%v = Tile(%x, $r)", 0, 0},
    {"const $s i64[3] = [4, 1, 3]\n", "x: f64[2,1]", "%v = Expand(%x, $s)", 0, 0},
    {"", "x: f64[2,3,3]", "%v = Trilu(%x) {upper=0}", 0, 0},
    {"", "x: f64[1,4,2,2]", "%v = DepthToSpace(%x) {blocksize=2}", 0, 0},
    {"const $s f32[4] = [1.0, 1.0, 2.0, 2.0]\n", "x: f64[1,1,2,3]",
     "%v = Resize(%x, _, $s) {mode=\"nearest\"}", 0, 0},
    {"const $s f32[4] = [1.0, 1.0, 2.5, 0.6]\n", "x: f64[1,2,3,5]", "%v = Resize(%x, _, $s) {mode=\"linear\"}", 0, 0},
    {"const $s i64[2] = [7, 2]\n", "x: f64[1,5,4]",
     "%v = Resize(%x, _, _, $s) {mode=\"cubic\", axes=[1, -1], antialias=1, exclude_outside=1}", 0, 0},
    {"const $r f32[6] = [0.0, 0.1, -0.2, 1.0, 0.7, 1.1]\nconst $s i64[3] = [2, 3, 4]\n", "x: f64[2,5,4]",
     "%v = Resize(%x, $r, _, $s) {mode=\"linear\", coordinate_transformation_mode=\"tf_crop_and_resize\", "
     "extrapolation_value=2}", 0, 0},
    {"const $z f64[] = [0]\n", "x: f64[4], w: f64[4]",
     "%n = ReduceSum(%x); %s = Squeeze(%n); %c = Greater(%s, $z); "
     "%v = If(%c, %x, %w) {then_branch=graph @t(%x: f64[*], %w: f64[*]) -> (%m) { %m: f64[*] = Mul(%x, %w)\n}, "
     "else_branch=graph @e(%x: f64[*], %w: f64[*]) -> (%r) { %e: f64[*] = Exp(%x)\n %r: f64[*] = Mul(%e, %x)\n}} captures 2",
     0, 0},
    {"const $z f64[] = [0]\n", "x: f64[4], w: f64[4]",
     "%n = ReduceSum(%x); %s = Squeeze(%n); %c = Less(%s, $z); "
     "%v = If(%c, %x, %w) {then_branch=graph @t(%x: f64[*], %w: f64[*]) -> (%m) { %m: f64[*] = Mul(%x, %w)\n}, "
     "else_branch=graph @e(%x: f64[*], %w: f64[*]) -> (%r) { %e: f64[*] = Exp(%x)\n %r: f64[*] = Mul(%e, %x)\n}} captures 2",
     0, 0},
    {"const $one i64[1] = [1]\n", "w: f64[3], x: f64[3,4], b: f64[3]",
     "%f, %o = Scan(%w, %x, %b) {body=graph @step(%s: f64[*], %e: f64[*], %b: f64[*]) -> (%t, %o) { %m: f64[*] = Mul(%s, %e)\n "
     "%n: f64[*] = Add(%m, %b)\n %t: f64[*] = Tanh(%n)\n %o: f64[*] = Mul(%t, %e)\n}, num_scan_inputs=1, scan_input_axes=[1], "
     "scan_input_directions=[1], scan_output_axes=[1]} captures 1; %g = Unsqueeze(%f, $one); %v = Mul(%g, %o)", 0, 0},
    {"", "x: f64[3,2]",
     "%o = Scan(%x) {body=graph @step(%e: f64[*]) -> (%o) { %o: f64[*] = Exp(%e)\n}, num_scan_inputs=1, "
     "scan_output_directions=[1]}; %v = Mul(%o, %x)", 0, 0},
    {"const $n i64[] = [3]\nconst $t bool[] = [1]\n", "x: f64[2], w: f64[2]",
     "%f, %o = Loop($n, $t, %x, %w) {body=graph @step(%i: i64[], %c: bool[], %s: f64[*], %w: f64[*]) -> (%d, %u, %o) "
     "{ %d: bool[] = Identity(%c)\n %p: f64[*] = Mul(%s, %w)\n %k: f64[] = Cast(%i) {to=11}\n %q: f64[*] = Add(%p, %k)\n "
     "%u: f64[*] = Sin(%q)\n %o: f64[*] = Mul(%u, %s)\n}} captures 1; %v = Add(%f, %o)", 0, 0},
    {"const $t bool[] = [1]\nconst $m f64[] = [4]\n", "x: f64[1]",
     "%f = Loop(_, $t, %x) {body=graph @step(%i: i64[], %c: bool[], %s: f64[*]) -> (%d, %u) { const $m f64[] = [4]\n "
     "%u: f64[*] = Mul(%s, %s)\n %r: f64[*] = Squeeze(%u)\n %d: bool[] = Less(%r, $m)\n}}; %v = Log(%f)", 1.1, 1.4},
    {"", "x: f64[3,2,4], w: f64[1,3,4], r: f64[1,3,3], b: f64[1,6]", "%v = RNN(%x, %w, %r, %b)", 0, 0},
    {"const $l i32[2] = [3, 1]\n", "x: f64[3,2,2], w: f64[2,6,2], r: f64[2,6,2], h: f64[2,2,2]",
     "%a, %b = GRU(%x, %w, %r, _, $l, %h) {direction=\"bidirectional\", linear_before_reset=1, clip=0.4}; "
     "%s = ReduceSum(%b); %v = Mul(%a, %s)", 0, 0},
    {"", "x: f64[2,3,2], w: f64[1,3,2], r: f64[1,3,1], b: f64[1,6]",
     "%v = GRU(%x, %w, %r, %b) {direction=\"reverse\", layout=1, activations=[\"HardSigmoid\", \"Affine\"], "
     "activation_alpha=[0.3, 0.7], activation_beta=[0.4, 0.1]}", 0, 0},
    {"const $l i32[2] = [2, 3]\n", "x: f64[3,2,2], w: f64[1,8,2], r: f64[1,8,2], p: f64[1,6]",
     "%a, %b, %c = LSTM(%x, %w, %r, _, $l, _, _, %p) {direction=\"reverse\"}; %d = Mul(%b, %c); %v = Add(%a, %d)", 0, 0},
    {"", "x: f64[2,3,2], w: f64[2,8,2], r: f64[2,8,2], c: f64[2,2,2]",
     "%a, %b, %d = LSTM(%x, %w, %r, _, _, _, %c) {direction=\"bidirectional\", layout=1, input_forget=1}; %s = ReduceSum(%d); "
     "%v = Mul(%a, %s)", 0, 0},
    {"", "x: f64[2,2,3,4], g: f64[2,2,3,2]", "%v = GridSample(%x, %g)", -1.3, 1.3},
    {"", "x: f64[1,2,3,4], g: f64[1,2,3,2]",
     "%v = GridSample(%x, %g) {mode=\"cubic\", padding_mode=\"border\", align_corners=1}", -1.2, 1.2},
    {"", "x: f64[1,1,4,4], g: f64[1,2,2,2]",
     "%a = GridSample(%x, %g) {mode=\"cubic\", padding_mode=\"reflection\"}; "
     "%b = GridSample(%x, %g) {padding_mode=\"reflection\", align_corners=1}; %v = Mul(%a, %b)", -1.8, 1.8},
    {"", "x: f64[1,2,2,3,2], g: f64[1,2,1,2,3]", "%v = GridSample(%x, %g) {padding_mode=\"border\"}", -0.9, 0.9},
    {"", "x: f64[1,2,3,3], g: f64[1,2,2,2]",
     "%a = GridSample(%x, %g) {mode=\"nearest\"}; %b = GridSample(%x, %g); %v = Mul(%a, %b)", -0.8, 0.8},
    {"", "x: f64[2,3,3]", "%a = Det(%x); %b = Exp(%a); %v = Mul(%b, %b)", 0.1, 1},
    {"", "x: f64[2,2]", "%a = Inverse(%x); %v = MatMul(%a, %x)", 0.5, 2},
    {"", "x: f64[2,2], w: f64[2,2]", "%a = Inverse(%x); %v = MatMul(%a, %w)", 0.5, 2},
    {"const $c bool[3] = [1, 0, 1]\n", "x: f64[2,3]", "%v = Compress(%x, $c) {axis=1}", 0, 0},
    {"const $l i64[2] = [2, 3]\n", "x: f64[3,2]", "%v = ReverseSequence(%x, $l)", 0, 0},
    {"", "x: f64[3]", "%a = Cast(%x) {to=1}; %b = Cast(%a) {to=11}; %v = Dropout(%b)", 0, 0},
};

/* Operators that want some size as a number. */
static const scenario with_numbers[] = {
    {"", "x: f64[2,3,4], w: f64[2,3,4], b: f64[2,3,4]",
     "%v = Attention(%x, %w, %b) {q_num_heads=2, kv_num_heads=2}", 0, 0},
};

/* Numbers above 1 in the shapes of the variables become symbols. */
static void put_vars(zn_text *t, const char *vars, bool symbols) {
  bool inside = false;
  for (const char *p = vars; *p; p++) {
    if (*p == '[' || *p == ']') inside = *p == '[';
    if (p == vars || (p[-1] == ' ' && p[-2] == ',')) zn_text_puts(t, "%");
    if (symbols && inside && isdigit((unsigned char)*p) && *p > '1') zn_text_puts(t, "d");
    zn_text_put(t, p, 1);
  }
}

static uint32_t put_names(zn_text *t, const char *vars, const char *before, const char *behind) {
  uint32_t n = 0;
  for (const char *p = vars; *p; p++)
    if (p == vars || (p[-1] == ' ' && p[-2] == ','))
      zn_text_printf(t, "%s%s%c%s", n++ ? ", " : "", before, *p, behind);
  return n;
}

/* "%a, %b = Split(%x); ..." with types that are to be inferred. */
static void put_body(zn_text *t, const char *body) {
  bool result = true;
  for (const char *p = body; *p; p++) {
    if (result && (*p == ',' || (*p == ' ' && p[1] == '='))) zn_text_puts(t, ": ?[*]");
    if (*p == '=') result = false;
    if (*p == ';') {
      zn_text_puts(t, "\n");
      result = true;
    } else {
      zn_text_put(t, p, 1);
    }
  }
}

static zn_graph *parse(zn_ctx *c, const scenario *s, bool symbols, uint32_t *out_vars) {
  zn_text t;
  zn_text_init(&t, &c->graph);
  zn_text_printf(&t, "zg 1\n%sgraph @t(", s->consts);
  put_vars(&t, s->vars, symbols);
  zn_text_puts(&t, ") -> (%y, ");
  *out_vars = put_names(&t, s->vars, "%d", "");
  zn_text_puts(&t, ") {\n ");
  put_body(&t, s->body);
  zn_text_puts(&t, "\n %y: ?[*] = Mul(%v, %v)\n ");
  put_names(&t, s->vars, "%d", ": ?[*]");
  zn_text_puts(&t, " = Gradient(");
  put_names(&t, s->vars, "%", "");
  zn_text_puts(&t, ") {xs=[");
  put_names(&t, s->vars, "\"", "\"");
  zn_text_puts(&t, "], y=\"y\"}\n}\n");
  zn_graph *g = NULL;
  if (zn_graph_parse(c, &c->graph, t.s, t.len, NULL, &g) != ZN_OK ||
      zn_grad_resolve(c, g) != ZN_OK) {
    print_message("%s", t.s);
    fail();
  }
  return g;
}

static double drawn(uint64_t *s, double lo, double hi) {
  *s = *s * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return lo + (hi - lo) * (double)(*s >> 40) / (double)(1 << 24);
}

/* Values of "x: f64[2,3], ..." */
static void draw(zn_ctx *c, const scenario *s, zn_eval_val *in) {
  uint64_t seed = 5;
  const double lo = s->lo == s->hi ? -1 : s->lo, hi = s->lo == s->hi ? 1 : s->hi;
  uint32_t v = 0;
  for (const char *p = strchr(s->vars, '['); p; p = strchr(p, '['), v++) {
    int64_t dims[ZN_MAX_RANK];
    uint32_t rank = 0;
    for (p++; *p != ']'; p += *p == ',') {
      char *end;
      dims[rank++] = strtoll(p, &end, 10);
      p = end;
    }
    zn_htensor h = zn_htensor_new(&c->graph, ZN_F64, rank, dims);
    for (uint64_t k = 0; k < zn_htensor_count(&h); k++)
      ((double *)h.data)[k] = drawn(&seed, lo, hi);
    in[v] = zn_eval_from_htensor(&c->graph, &h);
  }
}

static double sum_y(zn_ctx *c, const zn_graph *g, const zn_eval_val *in) {
  zn_arena a;
  zn_arena_init(&a, "y");
  zn_eval_val out[MAX_VARS + 1];
  double sum = 0;
  assert_int_equal(zn_eval_graph(c, g, ZN_EVAL_F64, &a, in, out, NULL), ZN_OK);
  for (uint64_t k = 0; k < out[0].count; k++) sum += out[0].u.f[k];
  zn_arena_reset(&a);
  return sum;
}

static void check(const scenario *s, bool symbols) {
  zn_ctx c;
  zn_ctx_init(&c);
  uint32_t n;
  zn_eval_val in[MAX_VARS], out[MAX_VARS + 1];
  const zn_graph *g = parse(&c, s, symbols, &n);
  draw(&c, s, in);
  assert_int_equal(zn_eval_graph(&c, g, ZN_EVAL_F64, &c.graph, in, out, NULL), ZN_OK);
  const double h = 0x1p-17;
  for (uint32_t v = 0; v < n; v++) {
    assert_int_equal(out[1 + v].count, in[v].count);
    for (uint64_t k = 0; k < in[v].count; k++) {
      const double x = in[v].u.f[k];
      in[v].u.f[k] = x + h;
      const double up = sum_y(&c, g, in);
      in[v].u.f[k] = x - h;
      const double want = (up - sum_y(&c, g, in)) / (2 * h), got = out[1 + v].u.f[k];
      in[v].u.f[k] = x;
      if (fabs(got - want) <= 2e-6 * (1 + fabs(want))) continue;
      print_message("%s\n%s, symbols %d: variable %u, element %u: %.9g, by differences %.9g\n",
                    s->body, s->vars, symbols, v, (unsigned)k, got, want);
      fail();
    }
  }
  zn_ctx_fini(&c);
}

static void numbers(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) check(&cases[k], false);
  for (size_t k = 0; k < sizeof with_numbers / sizeof *with_numbers; k++)
    check(&with_numbers[k], false);
}

static void symbols(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) check(&cases[k], true);
}

static zn_graph *read_text(zn_ctx *c, const char *text, zn_status want) {
  zn_graph *g;
  assert_int_equal(zn_graph_parse(c, &c->graph, text, strlen(text), NULL, &g), ZN_OK);
  assert_int_equal(zn_grad_resolve(c, g), want);
  return g;
}

static void run_scalars(zn_ctx *c, const zn_graph *g, uint32_t n, const double *x,
                        const double *want) {
  zn_eval_val in[4], out[4];
  for (uint32_t k = 0; k < n; k++) {
    zn_htensor h = zn_htensor_new(&c->graph, ZN_F64, 0, NULL);
    *(double *)h.data = x[k];
    in[k] = zn_eval_from_htensor(&c->graph, &h);
  }
  assert_int_equal(zn_eval_graph(c, g, ZN_EVAL_F64, &c->graph, in, out, NULL), ZN_OK);
  for (uint32_t k = 0; k < g->num_outputs; k++) assert_true(fabs(out[k].u.f[0] - want[k]) < 1e-12);
}

/* The second derivative, a value that stands for an intermediate tensor, and one that is held fixed. */
static void of_gradients(void **state) {
  (void)state;
  zn_ctx c;
  zn_ctx_init(&c);
  zn_graph *g =
      read_text(&c,
                "zg 1\ngraph @t(%x: f64[], %w: f64[]) -> (%d, %dd, %dw) {\n"
                " %a: f64[] = Mul(%x, %x)\n %b: f64[] = Mul(%a, %w)\n %y: f64[] = Mul(%b, %x)\n"
                " %d: f64[] = Gradient(%x, %w) {xs=[\"x\"], zs=[\"w\"], y=\"y\"}\n"
                " %dd: f64[], %dw: f64[] = Gradient(%x, %w) {xs=[\"x\", \"w\"], y=\"d\"}\n}\n",
                ZN_OK);
  run_scalars(&c, g, 2, (double[]){2, 5}, (double[]){60, 60, 12}); /* y = w x^3 */
  g = read_text(
      &c,
      "zg 1\ngraph @t(%x: f64[], %other: f64[]) -> (%da, %none) {\n"
      " %a: f64[] = Exp(%x)\n %y: f64[] = Mul(%a, %a)\n"
      " %da: f64[], %none: f64[] = Gradient(%other, %x) {xs=[\"a\", \"x\"], y=\"y\"}\n}\n",
      ZN_OK);
  run_scalars(&c, g, 2, (double[]){2, 5}, (double[]){10, 0});
  zn_ctx_fini(&c);
}

/* An operand that is broadcast only when the run says so. */
static void late_broadcast(void **state) {
  (void)state;
  for (int64_t n = 1; n <= 3; n += 2) {
    zn_ctx c;
    zn_ctx_init(&c);
    const zn_graph *g =
        read_text(&c,
                  "zg 1\ngraph @t(%x: f64[N], %w: f64[M]) -> (%dw) {\n %y: ?[*] = Mul(%x, %w)\n"
                  " %dw: ?[*] = Gradient(%w, %x) {xs=[\"w\"], zs=[\"x\"], y=\"y\"}\n}\n",
                  ZN_OK);
    zn_htensor x = zn_htensor_new(&c.graph, ZN_F64, 1, (int64_t[]){3}),
               w = zn_htensor_new(&c.graph, ZN_F64, 1, &n);
    for (int k = 0; k < 3; k++) ((double *)x.data)[k] = k + 1;
    const zn_eval_val in[2] = {zn_eval_from_htensor(&c.graph, &x),
                               zn_eval_from_htensor(&c.graph, &w)};
    zn_eval_val out;
    assert_int_equal(zn_eval_graph(&c, g, ZN_EVAL_F64, &c.graph, in, &out, NULL), ZN_OK);
    assert_int_equal(out.count, n);
    assert_true(out.u.f[0] == (n == 1 ? 6 : 1));
    zn_ctx_fini(&c);
  }
}

static void note_line(void *user, zn_severity sev, const char *line) {
  (void)sev;
  char *said = user;
  strncat(said, line, 4095 - strlen(said));
}

static void refusals(void **state) {
  (void)state;
  zn_ctx c;
  zn_ctx_init(&c);
  char said[4096] = "";
  c.sink = note_line;
  c.sink_user = said;
  read_text(&c,
            "zg 1\nconst $r f64[1,4] = [0, 0, 1, 1]\nconst $i i64[1] = [0]\ngraph @t(%x: f64[1,1,2,2]) -> (%d) {\n"
            " %a: ?[*] = RoiAlign(%x, $r, $i) @roi\n"
            " %b: ?[*] = LpPool(%x) {kernel_shape=[2, 2]} @pool\n"
            " %y: ?[*] = Add(%a, %b)\n %d: ?[*] = Gradient(%x) {xs=[\"x\"], y=\"y\"} @g\n}\n",
            ZN_ERR_UNSUPPORTED);
  read_text(&c,
            "zg 1\ngraph @t(%x: f64[2,2]) -> (%d) {\n %d: ?[*] = Gradient(%x) {xs=[\"z\"], "
            "y=\"x\"} @g\n}\n",
            ZN_ERR_MODEL);
  assert_non_null(strstr(said, "'roi' (RoiAlign)"));
  assert_non_null(strstr(said, "'pool' (LpPool)"));
  assert_non_null(strstr(said, "'z'"));
  zn_ctx_fini(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(numbers), cmocka_unit_test(symbols),
                                     cmocka_unit_test(of_gradients),
                                     cmocka_unit_test(late_broadcast), cmocka_unit_test(refusals)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
