/* Complex numbers taken apart and put together. */
#include <string.h>

#include "zenithc/eval/eval_impl.h"

double *zn_ev_parts(const zn_ev *e, const zn_eval_val *v, uint32_t part) {
  if (!zn_ev_is_cplx((zn_dtype)v->dtype)) return zn_ev_doubles(e, v);
  double *x = ZN_ARRAY(e->tmp, double, v->count + 1);
  for (uint64_t k = 0; k < v->count; k++) x[k] = v->u.f[2 * k + part];
  return x;
}

zn_status zn_eval_complexpart(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  const bool imaginary = zn_node_int(e->n, "imaginary") != 0;
  ZN_TRY(zn_ev_out(e, 0, x->dtype == ZN_C64 ? ZN_F32 : ZN_F64, x->rank, x->dims));
  for (uint64_t k = 0; k < x->count; k++) e->out[0].u.f[k] = x->u.f[2 * k + imaginary];
  return ZN_OK;
}

zn_status zn_eval_complexof(zn_ev *e) {
  const zn_eval_val *re = e->in[0], *im = e->in[1];
  if (re->rank != im->rank || memcmp(re->dims, im->dims, re->rank * sizeof re->dims[0]))
    return zn_ev_fail(e, "the parts differ in shape");
  ZN_TRY(zn_ev_out(e, 0, re->dtype == ZN_F32 ? ZN_C64 : ZN_C128, re->rank, re->dims));
  for (uint64_t k = 0; k < re->count; k++) {
    e->out[0].u.f[2 * k] = re->u.f[k];
    e->out[0].u.f[2 * k + 1] = im->u.f[k];
  }
  return ZN_OK;
}
