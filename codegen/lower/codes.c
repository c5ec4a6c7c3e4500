/* Codes of sums of codes (codes.h). Candidates are the real factors, which are scales over the result's scale, as integers
 * where they are some, else as floats and their neighbours: where the exact sum lies near a tie, the operators' own roundings
 * decide, and a neighbour may agree with all of them. A candidate counts when all pairs of bytes agree. */
#include "codegen/lower/codes.h"

#include <math.h>

enum { PAIRS = 65536, STEP = 40503 /* odd: pairs in an order that finds a bad candidate soon */ };
static const double least_factor = 1e-4, most_factor = 256;

static int32_t least(zn_dtype t) { return t == ZN_I8 ? -128 : 0; }

int32_t zn_code_literal(const zn_code_sum *s, int32_t a, int32_t b) {
  const float x = (float)(a - s->za) * s->sa, y = (float)(b - s->zb) * s->sb;
  float sum = x + y;
  if (s->relu && !(sum > 0)) sum = 0;
  const float q = rintf(sum / s->sy) + (float)s->zy, lo = (float)least(s->ty), hi = lo + 255;
  return (int32_t)(q < lo ? lo : q > hi ? hi : q);
}

int32_t zn_code_by_form(const zn_code_form *f, int32_t a, int32_t b) {
  const int32_t r = f->kind == ZN_CODES_INT ? a * f->ia + b * f->ib + f->ic
                                            : (int32_t)rintf(fmaf((float)a, f->fa, fmaf((float)b, f->fb, f->fc)));
  return r < f->low ? f->low : r > f->high ? f->high : r;
}

static bool holds(const zn_code_sum *s, const zn_code_form *f) {
  const int32_t la = least(s->ta), lb = least(s->tb);
  for (uint32_t i = 0, p = 0; i < PAIRS; i++, p = (p + STEP) % PAIRS) {
    const int32_t a = la + (int32_t)(p & 255), b = lb + (int32_t)(p >> 8);
    if (zn_code_by_form(f, a, b) != zn_code_literal(s, a, b)) return false;
  }
  return true;
}

/* The float k steps above x (below, k < 0). */
static float neighbour(float x, int k) {
  for (; k > 0; k--) x = nextafterf(x, INFINITY);
  for (; k < 0; k++) x = nextafterf(x, -INFINITY);
  return x;
}

static bool find_float(const zn_code_sum *s, double fa, double fb, zn_code_form *f) {
  static const int near[] = {0, 1, -1, 2, -2};
  f->kind = ZN_CODES_FLOAT;
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++)
      for (int k = 0; k < 5; k++) {
        f->fa = neighbour((float)fa, near[i]);
        f->fb = neighbour((float)fb, near[j]);
        const double c = s->zy - s->za * (double)f->fa - s->zb * (double)f->fb;
        f->fc = neighbour((float)c, near[k]);
        if (holds(s, f)) return true;
      }
  return false;
}

zn_code_form zn_code_find(const zn_code_sum *s) {
  zn_code_form f = {.low = least(s->ty)};
  f.high = f.low + 255;
  if (s->relu && s->zy > f.low) f.low = s->zy;
  const double fa = (double)s->sa / (double)s->sy, fb = (double)s->sb / (double)s->sy;
  if (!(fa > least_factor && fb > least_factor && fa < most_factor && fb < most_factor)) return f;
  f.ia = (int32_t)lrint(fa);
  f.ib = (int32_t)lrint(fb);
  f.ic = s->zy - s->za * f.ia - s->zb * f.ib;
  f.kind = ZN_CODES_INT;
  if (fabs(fa - f.ia) < 1e-3 && fabs(fb - f.ib) < 1e-3 && holds(s, &f)) return f;
  if (!find_float(s, fa, fb, &f)) f.kind = ZN_CODES_LITERAL;
  return f;
}

/* ---------------------------------------------------------------- in kernels */

/* A scale or zero point for all elements; absent: 0. */
static bool read_number(const zn_lw *lw, zn_vid v, double *out) {
  *out = 0;
  if (!v) return true;
  const zn_htensor *h = zn_lw_cst(lw, v);
  if (!h || !h->data || zn_htensor_count(h) != 1 || h->rank > 1) return false;
  *out = zn_is_float(h->dtype) ? zn_load_f64(h->dtype, h->data, 0) : (double)zn_load_i64(h->dtype, h->data, 0);
  return true;
}

/* The node that computes v in this place, when it is an `op`. */
static const zn_node *computed_by(const zn_lw *lw, zn_vid v, zn_op op) {
  const zn_value *val = &lw->g->vals[v];
  for (uint32_t i = 0; i < lw->num_over; i++)
    if (lw->over[i].v == v) return NULL;
  return v && val->inlined && val->def && lw->g->nodes[val->def].op == op ? &lw->g->nodes[val->def] : NULL;
}

/* Scale and zero point of a (de)quantiser of bytes, f32 on the other side. */
static bool read_quantiser(const zn_lw *lw, const zn_node *n, zn_vid code, zn_vid number, float *scale, int32_t *zero,
                           zn_dtype *t) {
  double s, z;
  *t = (zn_dtype)zn_lw_type(lw, code)->dtype;
  if ((*t != ZN_U8 && *t != ZN_I8) || zn_lw_type(lw, number)->dtype != ZN_F32 || zn_node_int(n, "block_size")) return false;
  if (zn_lw_type(lw, n->in[1])->dtype != ZN_F32 || !read_number(lw, n->in[1], &s)) return false;
  if (!read_number(lw, zn_node_in(n, 2), &z) || !(s > 1e-30 && s < 1e30)) return false;
  *scale = (float)s;
  *zero = (int32_t)z;
  return true;
}

static bool same_dims(const zn_lw *lw, zn_vid x, zn_vid y) {
  const zn_type *a = zn_lw_type(lw, x), *b = zn_lw_type(lw, y);
  if (a->rank != b->rank) return false;
  for (int d = 0; d < a->rank; d++)
    if (a->dims[d] != b->dims[d]) return false;
  return true;
}

/* The bytes behind v, a DequantizeLinear of the shape of y; 0: it is something else. */
static zn_vid dequantised(const zn_lw *lw, zn_vid v, zn_vid y, float *scale, int32_t *zero, zn_dtype *t) {
  const zn_node *n = computed_by(lw, v, ZN_OP_DequantizeLinear);
  if (!n || !same_dims(lw, v, y) || zn_lw_cst(lw, n->in[0])) return 0;
  return read_quantiser(lw, n, n->in[0], v, scale, zero, t) ? n->in[0] : 0;
}

static bool read_sum(const zn_lw *lw, zn_nid id, zn_code_sum *s, zn_vid in[2]) {
  const zn_node *n = &lw->g->nodes[id];
  const zn_vid y = n->out[0];
  if (zn_node_int(n, "precision") || !read_quantiser(lw, n, y, n->in[0], &s->sy, &s->zy, &s->ty)) return false;
  zn_vid x = n->in[0];
  const zn_node *relu = computed_by(lw, x, ZN_OP_Relu);
  s->relu = relu != NULL;
  if (relu) x = relu->in[0];
  const zn_node *add = computed_by(lw, x, ZN_OP_Add);
  if (!add) return false;
  in[0] = dequantised(lw, add->in[0], y, &s->sa, &s->za, &s->ta);
  in[1] = dequantised(lw, add->in[1], y, &s->sb, &s->zb, &s->tb);
  return in[0] && in[1];
}

static zn_kref as_int(zn_lw *lw, zn_vid v, const zn_expr *idx) {
  return zn_kb_cvt(&lw->kb, zn_lw_load(lw, v, idx), ZN_I32);
}

static zn_kref times(zn_lw *lw, zn_kref x, int32_t factor) {
  return factor == 1 ? x : zn_kb_bin(&lw->kb, ZN_K_Mul, x, zn_kb_int(&lw->kb, ZN_I32, factor));
}

/* rint(x) as i32 for |x| < 2^22: adding 1.5 * 2^23, which is even, leaves it in the low bits. */
static zn_kref round_near(zn_lw *lw, zn_kref x) {
  zn_kb *b = &lw->kb;
  x = zn_kb_bin(b, ZN_K_Add, x, zn_kb_float(b, ZN_F32, 0x1.8p23));
  zn_kref bits = zn_kb_bitcast(b, x, ZN_I32);
  return zn_kb_bin(b, ZN_K_Sub, bits, zn_kb_int(b, ZN_I32, 0x4b400000));
}

zn_kref zn_code_sum_point(zn_lw *lw, zn_nid n, const zn_expr *idx) {
  zn_kb *b = &lw->kb;
  zn_code_sum s = {0};
  zn_vid in[2] = {0};
  if (!lw->caps->fma || lw->caps->simt || !read_sum(lw, n, &s, in)) return 0;
  const void *key = lw->g->nodes[n].out;
  const zn_code_form *f = zn_lw_memo_find(lw, key);
  if (!f) {
    zn_code_form *found = ZN_NEW(lw->arena, zn_code_form);
    *found = zn_code_find(&s);
    zn_lw_memo_add(lw, key, found);
    f = found;
  }
  if (f->kind == ZN_CODES_LITERAL) return 0;
  zn_kref x = as_int(lw, in[0], idx), y = as_int(lw, in[1], idx), r;
  if (f->kind == ZN_CODES_INT) {
    x = times(lw, x, f->ia);
    y = times(lw, y, f->ib);
    r = zn_kb_bin(b, ZN_K_Add, x, y);
    r = zn_kb_bin(b, ZN_K_Add, r, zn_kb_int(b, ZN_I32, f->ic));
  } else {
    y = zn_kb_cvt(b, y, ZN_F32);
    x = zn_kb_cvt(b, x, ZN_F32);
    zn_kref fb = zn_kb_float(b, ZN_F32, (double)f->fb), fc = zn_kb_float(b, ZN_F32, (double)f->fc);
    r = zn_kb_fma(b, y, fb, fc);
    r = zn_kb_fma(b, x, zn_kb_float(b, ZN_F32, (double)f->fa), r);
    r = round_near(lw, r);
  }
  r = zn_kb_bin(b, ZN_K_Max, r, zn_kb_int(b, ZN_I32, f->low));
  r = zn_kb_bin(b, ZN_K_Min, r, zn_kb_int(b, ZN_I32, f->high));
  return zn_lw_convert(lw, r, ZN_I32, s.ty, true);
}
