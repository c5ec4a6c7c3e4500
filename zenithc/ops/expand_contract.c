/* Einsum as transposes and matrix products, and short Fourier transforms as products with constant
 * matrices. */
#include <math.h>

#include "zenithc/ops/expand_util.h"

/* ---- Einsum ---- */

enum {
  DOTS = 128,
  MAX_LABELS = 16
}; /* labels: characters; DOTS + k for the k-th axis of "..." from its end */

typedef struct term {
  zn_vid v;
  int label[MAX_LABELS];
  int n;
} term;

static bool has(const int *l, int n, int x) {
  for (int i = 0; i < n; i++) {
    if (l[i] == x) return true;
  }
  return false;
}

/* Reads labels of one term; rank < 0: the output, whose "..." stands for `dots` axes. */
static const char *read_term(const char *p, int rank, int dots, term *t, bool *ok) {
  int letters = 0;
  for (const char *q = p; *q && *q != ',' && *q != '-'; q++) letters += *q != '.' && *q != ' ';
  const int span = rank < 0 ? dots : rank - letters;
  t->n = 0;
  for (; *p && *p != ',' && *p != '-'; p++) {
    if (*p == ' ') continue;
    if (t->n + (*p == '.' ? span : 1) > ZN_MAX_RANK) {
      *ok = false;
      return p;
    }
    if (*p == '.') {
      for (int k = span - 1; k >= 0; k--) t->label[t->n++] = DOTS + k;
      p += 2;
    } else {
      if (has(t->label, t->n, *p)) *ok = false; /* a diagonal */
      t->label[t->n++] = *p;
    }
  }
  return p;
}

static zn_expr extent_of(const zn_rw *w, const term *t, int label) {
  for (int i = 0; i < t->n; i++) {
    if (t->label[i] == label) return zn_rw_type(w, t->v)->dims[i];
  }
  return ZN_EX_NONE;
}

/* Sums the labels of t that nobody needs any more. */
static void sum_out(zn_rw *w, term *t, const bool *needed) {
  int64_t axes[ZN_MAX_RANK];
  uint32_t m = 0;
  int k = 0;
  for (int i = 0; i < t->n; i++) {
    if (needed[t->label[i]]) t->label[k++] = t->label[i];
    else axes[m++] = i;
  }
  t->n = k;
  if (m) t->v = zn_rw_reduce(w, ZN_OP_ReduceSum, t->v, axes, m, false);
}

static zn_vid in_order(zn_rw *w, const term *t, const int *want, int n) {
  int64_t perm[ZN_MAX_RANK];
  bool same = true;
  for (int i = 0; i < n; i++) {
    for (int j = 0; j < t->n; j++) {
      if (t->label[j] == want[i]) perm[i] = j;
    }
    same &= perm[i] == i;
  }
  return same ? t->v : zn_rw_transpose(w, t->v, perm, (uint32_t)n);
}

typedef struct groups {
  int batch[ZN_MAX_RANK], left[ZN_MAX_RANK], right[ZN_MAX_RANK], sum[ZN_MAX_RANK];
  int nb, nl, nr, ns;
} groups;

static zn_expr product(zn_rw *w, const term *t, const int *label, int n) {
  zn_expr p = zn_ex_const(w->g->ex, 1);
  for (int i = 0; i < n; i++) p = zn_ex_mul(w->g->ex, p, extent_of(w, t, label[i]));
  return p;
}

/* t as [batch..., a merged, b merged]. 0 when the merged extents cannot be written. */
static zn_vid as_matrices(zn_rw *w, const term *t, const groups *s, const int *a, int na,
                          const int *b, int nb) {
  int want[3 * ZN_MAX_RANK], n = 0;
  zn_expr dims[ZN_MAX_RANK];
  for (int i = 0; i < s->nb; i++) want[n++] = s->batch[i];
  for (int i = 0; i < na; i++) want[n++] = a[i];
  for (int i = 0; i < nb; i++) want[n++] = b[i];
  const zn_vid v = in_order(w, t, want, n);
  if (w->st != ZN_OK || s->nb + 2 > ZN_MAX_RANK) return 0;
  if (na == 1 && nb == 1) return v;
  for (int i = 0; i < s->nb; i++) dims[i] = extent_of(w, t, s->batch[i]);
  dims[s->nb] = product(w, t, a, na);
  dims[s->nb + 1] = product(w, t, b, nb);
  return zn_rw_reshape(w, v, dims, s->nb + 2, v);
}

static bool contract(zn_rw *w, term *a, const term *b, const bool *needed) {
  groups s = {.nb = 0};
  zn_expr dims[3 * ZN_MAX_RANK];
  int n = 0, out[3 * ZN_MAX_RANK];
  for (int i = 0; i < a->n; i++) {
    const int l = a->label[i];
    if (!has(b->label, b->n, l)) s.left[s.nl++] = l;
    else if (needed[l]) s.batch[s.nb++] = l;
    else s.sum[s.ns++] = l;
    if (has(b->label, b->n, l) && extent_of(w, a, l) != extent_of(w, b, l)) return false;
  }
  for (int i = 0; i < b->n; i++) {
    if (!has(a->label, a->n, b->label[i])) s.right[s.nr++] = b->label[i];
  }
  for (int i = 0; i < s.nb; i++) out[n] = s.batch[i], dims[n++] = extent_of(w, a, s.batch[i]);
  for (int i = 0; i < s.nl; i++) out[n] = s.left[i], dims[n++] = extent_of(w, a, s.left[i]);
  for (int i = 0; i < s.nr; i++) out[n] = s.right[i], dims[n++] = extent_of(w, b, s.right[i]);
  if (n > ZN_MAX_RANK) return false;
  const zn_vid ma = as_matrices(w, a, &s, s.left, s.nl, s.sum, s.ns);
  const zn_vid mb = as_matrices(w, b, &s, s.sum, s.ns, s.right, s.nr);
  if (!ma || !mb) return false;
  /* without a summed label the product is elementwise: [.., L, 1] * [.., 1, R] */
  zn_vid y = zn_rw2(w, s.ns ? ZN_OP_MatMul : ZN_OP_Mul, ma, mb);
  if (w->st != ZN_OK) return false;
  if (s.nl != 1 || s.nr != 1) y = zn_rw_reshape(w, y, dims, n, y);
  if (!y) return false;
  a->v = y;
  a->n = n;
  for (int i = 0; i < n; i++) a->label[i] = out[i];
  return true;
}

ZN_EXPAND(einsum) {
  const zn_node *nd = zn_rw_node(w);
  const char *p = zn_node_str(nd, "equation");
  const uint32_t num = nd->num_in;
  term t[8], out = {.n = 0};
  bool ok = true;
  int dots = 0, count[DOTS + ZN_MAX_RANK] = {0};
  if (num == 0 || num > 8 || zn_rw_type(w, nd->out[0])->rank < 0) return ZN_OK;
  for (uint32_t i = 0; i < num && ok; i++) {
    t[i].v = nd->in[i];
    p = read_term(p, zn_rw_type(w, nd->in[i])->rank, 0, &t[i], &ok);
    if (*p == ',') p++;
    for (int k = 0; ok && k < t[i].n; k++) {
      count[t[i].label[k]]++;
      if (t[i].label[k] >= DOTS && t[i].label[k] - DOTS + 1 > dots) dots = t[i].label[k] - DOTS + 1;
    }
  }
  if (ok && *p == '-') {
    read_term(p + 2, -1, dots, &out, &ok);
  } else if (ok) {
    for (int k = dots - 1; k >= 0; k--) out.label[out.n++] = DOTS + k;
    for (int ch = 'A'; ch <= 'z' && out.n < ZN_MAX_RANK; ch++) {
      if (count[ch] == 1) out.label[out.n++] = ch;
    }
  }
  if (!ok) return ZN_OK;
  /* MatMul and ReduceSum take no integers of 8 and 16 bits; what wraps in 32 is right in fewer */
  const zn_dtype elem = (zn_dtype)zn_rw_type(w, t[0].v)->dtype;
  const bool narrow = zn_is_int(elem) && zn_dtype_bytes(elem) < 4;
  for (uint32_t i = 0; i < num && narrow; i++) t[i].v = zn_rw_cast(w, t[i].v, ZN_I32);
  for (uint32_t i = 0; i < num; i++) {
    bool needed[DOTS + ZN_MAX_RANK] = {false};
    for (int k = 0; k < out.n; k++) needed[out.label[k]] = true;
    for (uint32_t j = i + 1; j < num; j++) {
      for (int k = 0; k < t[j].n; k++) needed[t[j].label[k]] = true;
    }
    if (i > 0) {
      bool own[DOTS + ZN_MAX_RANK];
      memcpy(own, needed, sizeof own);
      for (int k = 0; k < t[0].n; k++) own[t[0].label[k]] = true;
      sum_out(w, &t[i], own);
      if (w->st != ZN_OK || !contract(w, &t[0], &t[i], needed)) return w->st;
    }
    sum_out(w, &t[0], needed);
  }
  if (w->st != ZN_OK || t[0].n != out.n) return w->st;
  const zn_vid y = in_order(w, &t[0], out.label, out.n);
  zn_rw_output(w, 0, narrow ? zn_rw_cast(w, y, elem) : zn_rw1(w, ZN_OP_Identity, y));
  return zn_rw_done(w);
}

/* ---- Fourier transforms ---- */

enum { MAX_MATRIX = 1 << 22 };

/* A window as a convolution: kernel row k is window * cos(2 pi k n / len), row bins + k is window *
 * -sin. */
ZN_EXPAND(stft) {
  const zn_node *n = zn_rw_node(w);
  const zn_vid x = n->in[0], win = zn_node_in(n, 2);
  const zn_type in = *zn_rw_type(w, x);
  const zn_dtype t = (zn_dtype)in.dtype;
  int64_t step, len, parts = 1;
  uint32_t c;
  if (in.rank < 2 || in.rank > 3 || !zn_value_i64s(w->g, n->in[1], &step, 1, &c) || step < 1)
    return ZN_OK;
  const zn_htensor *h = win ? w->g->vals[win].cst : NULL;
  if (win && !h) return ZN_OK;
  if (zn_node_in(n, 3)) {
    if (!zn_value_i64s(w->g, n->in[3], &len, 1, &c)) return ZN_OK;
  } else {
    len = h ? (int64_t)zn_htensor_count(h) : 0;
  }
  if (in.rank == 3 && !zn_ex_is_const(w->g->ex, in.dims[2], &parts)) return ZN_OK;
  const int64_t bins = zn_node_int(n, "onesided") ? len / 2 + 1 : len;
  if (len < 1 || (h && (int64_t)zn_htensor_count(h) != len) || 2 * bins * len * parts > MAX_MATRIX)
    return ZN_OK;
  const int64_t kd[3] = {2 * bins, parts, len};
  zn_htensor *k = ZN_NEW(w->g->arena, zn_htensor);
  *k = zn_htensor_new(w->g->arena, t, 3, kd);
  for (int64_t b = 0; b < bins; b++) {
    for (int64_t i = 0; i < len; i++) {
      const double f = 2 * 3.14159265358979323846 * (double)(b * i % len) / (double)len;
      const double g = h ? zn_load_f64(h->dtype, h->data, (uint64_t)i) : 1, re = g * cos(f),
                   im = -g * sin(f);
      const uint64_t row = (uint64_t)(b * parts * len + i),
                     low = (uint64_t)((bins + b) * parts * len + i);
      zn_store_f64(t, k->data, row, re);
      zn_store_f64(t, k->data, low, im);
      if (parts == 2) { /* times i: (re, im) becomes (-im, re) */
        zn_store_f64(t, k->data, row + (uint64_t)len, -im);
        zn_store_f64(t, k->data, low + (uint64_t)len, re);
      }
    }
  }
  const int64_t one = 1, swap[3] = {0, 2, 1}, apart[4] = {0, 2, bins, -1}, last[4] = {0, 3, 2, 1};
  const zn_vid cx = in.rank == 2 ? zn_rw_unsqueeze(w, x, &one, 1) : zn_rw_transpose(w, x, swap, 3);
  const zn_vid ci[2] = {cx, zn_graph_const(w->g, NULL, k)};
  const zn_nid conv = zn_rw_raw(w, ZN_OP_Conv, ci, 2, 1);
  if (!conv) return w->st;
  zn_node_set_ints(w->g, conv, "strides", &step, 1);
  const zn_vid y = zn_rw_reshape_to(w, zn_rw_infer(w, conv), apart, 4);
  zn_rw_output(w, 0, zn_rw_transpose(w, y, last, 4));
  return zn_rw_done(w);
}

typedef struct dft {
  int64_t in, len, out; /* given samples, transform length, results */
  bool inverse, half;
} dft;

/* Matrix [in, out]: what sample i adds to result o; `sine` picks the part. */
static zn_vid dft_matrix(zn_rw *w, const dft *f, bool sine, zn_dtype t) {
  const int64_t dims[2] = {f->in, f->out};
  zn_htensor *h = ZN_NEW(w->g->arena, zn_htensor);
  *h = zn_htensor_new(w->g->arena, t, 2, dims);
  for (int64_t i = 0; i < f->in && i < (f->inverse && f->half ? f->len / 2 + 1 : f->len); i++) {
    for (int64_t o = 0; o < f->out; o++) {
      const double a = 2 * 3.14159265358979323846 * (double)(i * o % f->len) / (double)f->len;
      double v = sine ? sin(a) : cos(a);
      if (f->inverse) v /= (double)f->len;
      if (f->inverse && f->half && i != 0 && 2 * i != f->len) v *= 2; /* the mirrored bin */
      zn_store_f64(t, h->data, (uint64_t)(i * f->out + o), v);
    }
  }
  return zn_graph_const(w->g, NULL, h);
}

ZN_EXPAND(dft) {
  const zn_node *n = zn_rw_node(w);
  const zn_vid x = n->in[0];
  const zn_type in = *zn_rw_type(w, x);
  const zn_dtype t = (zn_dtype)in.dtype;
  int64_t axis = -2, parts, perm[ZN_MAX_RANK], last = in.rank - 1;
  uint32_t c;
  dft f = {.inverse = zn_node_int(n, "inverse") != 0, .half = zn_node_int(n, "onesided") != 0};
  if (in.rank < 2 || (zn_node_in(n, 2) && !zn_value_i64s(w->g, n->in[2], &axis, 1, &c)))
    return ZN_OK;
  if (axis < 0) axis += in.rank;
  if (!zn_ex_is_const(w->g->ex, in.dims[last], &parts) ||
      !zn_ex_is_const(w->g->ex, in.dims[axis], &f.in))
    return ZN_OK;
  f.len = f.inverse && f.half ? 2 * (f.in - 1) : f.in;
  if (zn_node_in(n, 1) && !zn_value_i64s(w->g, n->in[1], &f.len, 1, &c)) return ZN_OK;
  f.out = f.half && !f.inverse ? f.len / 2 + 1 : f.len;
  if (f.len < 1 || f.in < 1 || f.in * f.out > MAX_MATRIX) return ZN_OK;
  for (int64_t d = 0; d < last; d++) perm[d] = d == axis ? last - 1 : d == last - 1 ? axis : d;
  zn_vid re = zn_rw_squeeze(w, zn_rw_slice(w, x, last, 0, 1), &last, 1), im = 0;
  if (parts == 2) im = zn_rw_squeeze(w, zn_rw_slice(w, x, last, 1, 2), &last, 1);
  re = zn_rw_transpose(w, re, perm, (uint32_t)last);
  if (im) im = zn_rw_transpose(w, im, perm, (uint32_t)last);
  const zn_vid cm = dft_matrix(w, &f, false, t), sm = dft_matrix(w, &f, true, t);
  /* forward: (re + i im)(cos - i sin); inverse: (re + i im)(cos + i sin) */
  zn_vid yr = zn_rw2(w, ZN_OP_MatMul, re, cm), yi = zn_rw2(w, ZN_OP_MatMul, re, sm);
  if (!f.inverse) yi = zn_rw1(w, ZN_OP_Neg, yi);
  if (im) {
    yr = zn_rw2(w, f.inverse ? ZN_OP_Sub : ZN_OP_Add, yr, zn_rw2(w, ZN_OP_MatMul, im, sm));
    yi = zn_rw2(w, ZN_OP_Add, yi, zn_rw2(w, ZN_OP_MatMul, im, cm));
  }
  yr = zn_rw_unsqueeze(w, zn_rw_transpose(w, yr, perm, (uint32_t)last), &last, 1);
  yi = zn_rw_unsqueeze(w, zn_rw_transpose(w, yi, perm, (uint32_t)last), &last, 1);
  const zn_vid pair[2] = {yr, yi};
  zn_rw_output(w, 0,
               f.inverse && f.half ? zn_rw1(w, ZN_OP_Identity, yr)
                                   : zn_rw_attr_int(w, ZN_OP_Concat, pair, 2, "axis", last));
  return zn_rw_done(w);
}
