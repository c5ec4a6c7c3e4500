/* Inside the evaluator: what operator functions see. Each row of ops.def names one function
 * zn_eval_X(zn_ev *). */
#ifndef ZN_EVAL_IMPL_H
#define ZN_EVAL_IMPL_H
#include <math.h>

#include "zenithc/eval/eval.h"
#include "zenithc/ops/op.h"

/* A refcounted block of memory. All blocks of a run are on one list, so that a failing run frees
 * everything. */
struct zn_eval_buf {
  zn_eval_buf *prev, *next;
  uint64_t refs, bytes;
  uint64_t num_items; /* > 0: contents are zn_eval_val that are released with the block */
};

typedef struct zn_evrun {
  zn_ctx *c;
  zn_eval_mode mode;
  zn_arena *keep; /* lives until the caller is done: strings, results */
  zn_eval_tap *tap;
  zn_eval_buf list; /* head of the ring of live blocks */
  uint64_t live, peak;
  uint32_t depth;
  bool quiet; /* report no errors */
} zn_evrun;

/* One node being evaluated. */
typedef struct zn_ev {
  zn_evrun *run;
  zn_ctx *c;
  const zn_graph *g;
  const zn_node *n;
  zn_nid id;
  zn_op op;
  uint32_t num_in, num_out;
  const zn_eval_val *const *in; /* NULL = absent */
  zn_eval_val *out;             /* all unset on entry */
  zn_arena *tmp;                /* scratch, reset after the node */
  bool single;                  /* round every arithmetic result to float */
  zn_eval_mode mode;            /* F64 unless single: the order of sums */
} zn_ev;

typedef zn_status (*zn_eval_fn)(zn_ev *e);
extern const zn_eval_fn zn_eval_table[ZN_OP_COUNT];
#define OP(name, domain, since, schema, infer, eval, expand, lower, flags)                         \
  zn_status zn_eval_##eval(zn_ev *e);
#include "zenithc/ops/ops.def"
#undef OP

/* Error at this node. */
zn_status zn_ev_fail(zn_ev *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- values ---- */
static inline const zn_eval_val *zn_ev_in(const zn_ev *e, uint32_t i) {
  return i < e->num_in ? e->in[i] : NULL;
}
static inline bool zn_ev_wants(const zn_ev *e, uint32_t i) {
  return i < e->num_out && e->n->out[i] != 0;
}
/* Bytes per element as held here: 8 or 16. */
static inline size_t zn_ev_esize(zn_dtype t) {
  return t == ZN_STR || t == ZN_C64 || t == ZN_C128 ? 16 : 8;
}
static inline bool zn_ev_is_cplx(zn_dtype t) { return t == ZN_C64 || t == ZN_C128; }
/* A zero-filled tensor (or an error when it is impossibly large). The caller owns one reference. */
zn_status zn_ev_new(zn_ev *e, zn_dtype t, uint32_t rank, const int64_t *dims, zn_eval_val *out);
/* The same into output i. */
zn_status zn_ev_out(zn_ev *e, uint32_t i, zn_dtype t, uint32_t rank, const int64_t *dims);
/* A sequence, optional (n <= 1) or map (n == 2) with n unset items. */
zn_status zn_ev_list(zn_ev *e, zn_vkind kind, zn_dtype t, uint64_t n, zn_eval_val *out);
void zn_ev_load(zn_eval_val *v, const zn_htensor *t); /* fills a tensor of t's dtype and shape, exactly */
zn_eval_val zn_ev_share(const zn_eval_val *v); /* another reference to the same contents */
void zn_ev_release(zn_evrun *r, zn_eval_val *v);
/* Output i = input v with another shape of the same count. */
zn_status zn_ev_view(zn_ev *e, uint32_t i, const zn_eval_val *v, uint32_t rank,
                     const int64_t *dims);
/* A string that lives as long as the results. */
zn_str zn_ev_str(zn_ev *e, const char *s, uint64_t n);
int zn_ev_strcmp(const zn_str *a, const zn_str *b);
/* Element k of a numeric tensor. */
static inline double zn_ev_get(const zn_eval_val *v, uint64_t k) {
  if (zn_is_float((zn_dtype)v->dtype)) return v->u.f[k];
  return v->dtype == ZN_U64 ? (double)(uint64_t)v->u.i[k] : (double)v->u.i[k];
}
static inline int64_t zn_ev_geti(const zn_eval_val *v, uint64_t k) {
  return zn_is_float((zn_dtype)v->dtype) ? (int64_t)v->u.f[k] : v->u.i[k];
}
/* Stores x into a numeric tensor: floats as they are, integers truncated, saturated (NaN 0), bool x
 * != 0. */
void zn_ev_set(zn_eval_val *v, uint64_t k, double x);
/* Input i as int64s of rank <= 1; *n = count. False when absent. */
bool zn_ev_ints(const zn_ev *e, uint32_t i, const int64_t **out, uint32_t *n);
/* A copy whose numbers are doubles (tmp arena), whatever the dtype. */
double *zn_ev_doubles(const zn_ev *e, const zn_eval_val *v);

/* The same of the real (0) or imaginary (1) parts of complex numbers. */
double *zn_ev_parts(const zn_ev *e, const zn_eval_val *v, uint32_t part);

/* ---- arithmetic ---- */
/* x in type t (f16, bf16, f32), rounded to the one neighbour or to the other: mode says which. */
double zn_ev_jitter(zn_eval_mode mode, zn_dtype t, double x);
static inline double zn_ev_r(const zn_ev *e, double x) {
  if (e->single && e->mode >= ZN_EVAL_F32_RANDOM) return zn_ev_jitter(e->mode, ZN_F32, x);
  return e->single ? (double)(float)x : x;
}
/* Rounded to the declared dtype (f16, bf16, f32), for decisions. */
static inline double zn_ev_key(zn_dtype t, double x) {
  return t == ZN_F64 ? x : t == ZN_F32 ? (double)(float)x : zn_eval_round(t, x);
}
/* The i-th of n numbers to add in this mode; the random ones start somewhere and wrap around. */
static inline uint64_t zn_ev_turn(zn_eval_mode mode, uint64_t i, uint64_t n) {
  if (mode == ZN_EVAL_F32_REV) return n - 1 - i;
  if (mode < ZN_EVAL_F32_RANDOM) return i;
  i += n / (ZN_EVAL_RANDOM_RUNS + 1) * (uint64_t)(mode - ZN_EVAL_F32_RANDOM + 1);
  return i < n ? i : i - n;
}
/* s + a b: the random modes round once, the ordered ones twice. */
static inline float zn_ev_madd(zn_eval_mode mode, float a, float b, float s) {
  return mode >= ZN_EVAL_F32_RANDOM ? fmaf(a, b, s) : s + a * b;
}
/* Sum of n numbers in the mode's order (F64: pairwise). */
double zn_ev_sum(const zn_ev *e, const double *x, uint64_t n, uint64_t stride);
double zn_ev_dot(const zn_ev *e, const double *x, uint64_t sx, const double *y, uint64_t sy,
                 uint64_t n);
/* C[M,N] = A[M,K] B[K,N], row-major with row strides; C is overwritten. Sums in the mode's order.
 */
void zn_ev_gemm(const zn_ev *e, uint64_t M, uint64_t N, uint64_t K, const double *A, uint64_t lda,
                const double *B, uint64_t ldb, double *C, uint64_t ldc);
/* Calls fn(user, lo, hi) on disjoint parts of [0, n), on two threads when the work (multiply-adds)
 * is worth it. */
void zn_ev_parallel(uint64_t n, double work, void (*fn)(void *user, uint64_t lo, uint64_t hi),
                    void *user);

/* In place over n numbers. */
void zn_ev_softmax(const zn_ev *e, double *t, uint64_t n, bool logs);

/* post_transform of the ai.onnx.ml classifiers, in place. */
void zn_ev_post(const zn_ev *e, const char *post, double *y, uint64_t n);

/* ---- shapes ---- */
uint64_t zn_ev_count(uint32_t rank, const int64_t *dims);
zn_status zn_ev_axis(zn_ev *e, int64_t axis, uint32_t rank, uint32_t *out);
/* outer * dims[axis] * inner */
void zn_ev_split(const zn_eval_val *v, uint32_t axis, uint64_t *outer, uint64_t *n,
                 uint64_t *inner);
zn_status zn_ev_bcast(zn_ev *e, const zn_eval_val *const *v, uint32_t n, uint32_t *out_rank,
                      int64_t *out_dims);
/* Element strides of v seen with the broadcast shape (0 for repeated axes). */
void zn_ev_bstrides(const zn_eval_val *v, uint32_t rank, int64_t *strides);
/* Steps the index vector in row-major order. */
static inline void zn_ev_next(uint32_t rank, const int64_t *dims, int64_t *ix) {
  for (uint32_t d = rank; d-- > 0;) {
    if (++ix[d] < dims[d]) return;
    ix[d] = 0;
  }
}
void zn_ev_strides(uint32_t rank, const int64_t *dims, int64_t *strides);
/* dst[k] = src[sum ix*strides + base] over all ix in dims, elements of esize bytes. */
void zn_ev_gather(void *dst, const void *src, size_t esize, uint32_t rank, const int64_t *dims,
                  const int64_t *strides, int64_t base);
static inline void zn_ev_copy1(void *dst, uint64_t i, const void *src, uint64_t j, size_t esize) {
  memcpy((char *)dst + i * esize, (const char *)src + j * esize, esize);
}

/* ---- windows: convolution and pooling ---- */
typedef struct zn_ev_win {
  uint32_t n; /* spatial axes: all but the first two */
  int64_t in[ZN_MAX_RANK], out[ZN_MAX_RANK], k[ZN_MAX_RANK], s[ZN_MAX_RANK], d[ZN_MAX_RANK],
      lo[ZN_MAX_RANK], hi[ZN_MAX_RANK];
} zn_ev_win;
/* From attributes strides, dilations, pads, auto_pad (and ceil_mode for pools) and the given kernel
 * extents. */
zn_status zn_ev_window(zn_ev *e, const zn_eval_val *x, const int64_t *kernel, bool ceil_mode,
                       zn_ev_win *w);
/* Attribute ints of exactly n items, or `fill` when absent. */
zn_status zn_ev_attr_ints(zn_ev *e, const char *name, uint32_t n, int64_t fill, int64_t *out);
/* y[N,M,out] = conv(x[N,C,in], w[M,C/group,k]); bias may be NULL. */
zn_status zn_ev_conv(zn_ev *e, const double *x, const double *w, const double *bias, uint64_t N,
                     uint64_t C, uint64_t M, uint64_t group, const zn_ev_win *win, double *y);

/* ---- conversion: one element from src[j] to dst[i], with the rules of Cast ---- */
zn_status zn_ev_cast1(zn_ev *e, zn_eval_val *dst, uint64_t i, const zn_eval_val *src, uint64_t j,
                      bool saturate, const char *round_mode);
/* eval_text.c: text to number and back. 8-bit and narrower floats are read as a double that rounds as the exact number does. */
zn_status zn_ev_read_number(zn_ev *e, const zn_str *s, zn_eval_val *dst, uint64_t i);
zn_str zn_ev_print_number(zn_ev *e, const zn_eval_val *v, uint64_t j);

/* ---- bodies ---- */
typedef struct zn_evframe zn_evframe;
zn_evframe *zn_ev_frame(zn_evrun *r, const zn_graph *g); /* constants are loaded once per frame */
/* in: num_in values; out: g->num_outputs values, owned by the caller. */
zn_status zn_ev_call(zn_evframe *f, const zn_eval_val *in, uint32_t num_in, zn_eval_val *out);
void zn_ev_frame_free(zn_evframe *f);

/* ---- random numbers: splitmix64 ---- */
uint64_t zn_ev_seed(const zn_ev *e); /* from attribute seed, else from the node's name */
uint64_t zn_ev_rand(uint64_t *state);
double zn_ev_uniform(uint64_t *state); /* [0, 1) */
double zn_ev_normal(uint64_t *state);
#endif
