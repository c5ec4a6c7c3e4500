/* Quantisation: round half to even, then saturate; per tensor, per axis and blocked scales.
 * Decisions are taken in the declared types: x and the quotient are rounded to the scale's type
 * first. */
#include "zenithc/eval/eval_impl.h"

typedef struct scales {
  const zn_eval_val *s, *z;
  uint64_t n, inner,
      block; /* axis extent, elements behind it, block size (0: one scale per index) */
  bool scalar;
} scales;

static zn_status scales_init(zn_ev *e, const zn_eval_val *x, const zn_eval_val *s,
                             const zn_eval_val *z, scales *o) {
  int64_t block = zn_node_int(e->n, "block_size"), axis = zn_node_int(e->n, "axis");
  *o = (scales){.s = s, .z = z, .n = 1, .inner = 1, .scalar = s->count == 1 && s->rank <= 1};
  if (o->scalar) return ZN_OK;
  uint32_t a;
  uint64_t outer;
  ZN_TRY(zn_ev_axis(e, axis, x->rank, &a));
  zn_ev_split(x, a, &outer, &o->n, &o->inner);
  if (s->rank == 1 && s->count == o->n && block == 0) return ZN_OK;
  if (s->rank != x->rank) return zn_ev_fail(e, "the scale has rank %u and does not fit x", s->rank);
  uint64_t parts = (uint64_t)s->dims[a];
  if (block <= 0) block = parts ? (int64_t)((o->n + parts - 1) / parts) : 1;
  o->block = (uint64_t)block;
  if (parts != (o->n + o->block - 1) / o->block || s->count != outer * parts * o->inner)
    return zn_ev_fail(e, "the scale's blocks do not cover x");
  return ZN_OK;
}

static uint64_t scale_index(const scales *o, uint64_t i) {
  if (o->scalar) return 0;
  uint64_t k = i / o->inner % o->n;
  if (!o->block) return k;
  uint64_t parts = (o->n + o->block - 1) / o->block;
  return (i / (o->inner * o->n) * parts + k / o->block) * o->inner + i % o->inner;
}

static double scale_key(const zn_eval_val *s, uint64_t k) {
  return zn_is_float((zn_dtype)s->dtype) ? zn_ev_key((zn_dtype)s->dtype, s->u.f[k])
                                         : zn_ev_get(s, k);
}

static double zero_at(const scales *o, uint64_t k) {
  return o->z ? zn_ev_get(o->z, o->z->count == 1 ? 0 : k) : 0;
}

zn_status zn_eval_quantizelinear(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *s = e->in[1], *z = zn_ev_in(e, 2);
  zn_dtype t = z ? (zn_dtype)z->dtype : ZN_U8;
  if (!z && zn_node_int(e->n, "output_dtype"))
    t = zn_dtype_from_onnx((int)zn_node_int(e->n, "output_dtype"));
  int64_t prec = zn_node_int(e->n, "precision");
  zn_dtype div = prec ? zn_dtype_from_onnx((int)prec)
                 : zn_is_float((zn_dtype)s->dtype) && s->dtype != ZN_F8E8M0 ? (zn_dtype)s->dtype
                                                                            : ZN_F32;
  scales sc;
  ZN_TRY(scales_init(e, x, s, z, &sc));
  ZN_TRY(zn_ev_out(e, 0, t, x->rank, x->dims));
  bool sat = zn_node_int(e->n, "saturate") != 0;
  for (uint64_t i = 0; i < x->count; i++) {
    uint64_t k = scale_index(&sc, i);
    double v = zn_ev_key((zn_dtype)(zn_is_float((zn_dtype)x->dtype) ? x->dtype : ZN_F64),
                         zn_ev_get(x, i));
    double by = scale_key(s, k);
    if (prec) v = zn_ev_key(div, v), by = zn_ev_key(div, by);
    v = zn_ev_key(div, v / by);
    if (zn_is_float(t))
      e->out[0].u.f[i] = zn_float_decode(t, zn_float_encode(t, (double)(float)(v + zero_at(&sc, k)), sat));
    else zn_ev_set(&e->out[0], i, isnan(v) ? -(double)INFINITY : rint(v) + zero_at(&sc, k)); /* NaN clips to the least */
  }
  return ZN_OK;
}

zn_status zn_eval_dequantizelinear(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *s = e->in[1], *z = zn_ev_in(e, 2);
  int64_t od = zn_node_int(e->n, "output_dtype");
  zn_dtype t = od ? zn_dtype_from_onnx((int)od) : (zn_dtype)s->dtype;
  scales sc;
  ZN_TRY(scales_init(e, x, s, z, &sc));
  ZN_TRY(zn_ev_out(e, 0, t, x->rank, x->dims));
  for (uint64_t i = 0; i < x->count; i++) {
    uint64_t k = scale_index(&sc, i);
    e->out[0].u.f[i] = zn_ev_r(e, (zn_ev_get(x, i) - zero_at(&sc, k)) * zn_ev_get(s, k));
  }
  return ZN_OK;
}

/* Computed in float, as the specification writes it: the scale decides every code. */
zn_status zn_eval_dynamicquantizelinear(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  float lo = 0, hi = 0;
  for (uint64_t k = 0; k < x->count; k++) {
    float v = (float)x->u.f[k];
    lo = v < lo ? v : lo;
    hi = v > hi ? v : hi;
  }
  float scale = (hi - lo) / 255.0f;
  float zp = scale == 0 ? 0 : rintf(fminf(255.0f, fmaxf(0.0f, 0.0f - lo / scale)));
  ZN_TRY(zn_ev_out(e, 0, ZN_U8, x->rank, x->dims));
  ZN_TRY(zn_ev_out(e, 1, ZN_F32, 0, NULL));
  ZN_TRY(zn_ev_out(e, 2, ZN_U8, 0, NULL));
  e->out[1].u.f[0] = (double)scale;
  e->out[2].u.i[0] = (int64_t)zp;
  for (uint64_t k = 0; k < x->count; k++)
    zn_ev_set(&e->out[0], k, scale == 0 ? 0 : (double)(rintf((float)x->u.f[k] / scale) + zp));
  return ZN_OK;
}
