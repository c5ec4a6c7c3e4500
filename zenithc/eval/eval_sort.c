/* Order and selection: TopK, Unique, NonZero, Compress, NonMaxSuppression. */
#include "zenithc/eval/eval_impl.h"

/* Three-way comparison of two elements of one tensor; NaN is larger than everything. */
static int compare(const zn_eval_val *v, uint64_t a, uint64_t b) {
  zn_dtype t = (zn_dtype)v->dtype;
  if (t == ZN_STR) return zn_ev_strcmp(&v->u.s[a], &v->u.s[b]);
  if (zn_ev_is_cplx(t)) {
    int c = (v->u.f[2 * a] > v->u.f[2 * b]) - (v->u.f[2 * a] < v->u.f[2 * b]);
    return c ? c
             : (v->u.f[2 * a + 1] > v->u.f[2 * b + 1]) - (v->u.f[2 * a + 1] < v->u.f[2 * b + 1]);
  }
  if (zn_is_float(t)) {
    double x = zn_ev_key(t, v->u.f[a]), y = zn_ev_key(t, v->u.f[b]);
    if (isnan(x) || isnan(y)) return isnan(x) - isnan(y);
    return (x > y) - (x < y);
  }
  if (t == ZN_U64)
    return ((uint64_t)v->u.i[a] > (uint64_t)v->u.i[b]) -
           ((uint64_t)v->u.i[a] < (uint64_t)v->u.i[b]);
  return (v->u.i[a] > v->u.i[b]) - (v->u.i[a] < v->u.i[b]);
}

typedef struct order {
  const zn_eval_val *v;
  uint64_t base, stride, len; /* key k = elements base + k*stride .. , len of them `step` apart */
  uint64_t step;
  int sign;
} order;

static int cmp_keys(const order *o, uint64_t a, uint64_t b) {
  for (uint64_t i = 0; i < o->len; i++) {
    int c = compare(o->v, o->base + a * o->stride + i * o->step,
                    o->base + b * o->stride + i * o->step);
    if (c) return c * o->sign;
  }
  return 0;
}

/* Stable merge sort of key numbers. */
static void sort_keys(const order *o, uint64_t *k, uint64_t *tmp, uint64_t n) {
  if (n < 2) return;
  uint64_t h = n / 2, i = 0, j = h, w = 0;
  sort_keys(o, k, tmp, h);
  sort_keys(o, k + h, tmp, n - h);
  memcpy(tmp, k, n * sizeof *k);
  while (i < h || j < n)
    k[w++] = j >= n || (i < h && cmp_keys(o, tmp[i], tmp[j]) <= 0) ? tmp[i++] : tmp[j++];
}

zn_status zn_eval_topk(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  uint32_t a;
  if (!e->in[1]->count) return zn_ev_fail(e, "K must be a scalar");
  int64_t k = e->in[1]->u.i[0];
  ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "axis"), x->rank, &a));
  if (k < 0 || k > x->dims[a])
    return zn_ev_fail(e, "K is %lld, the axis has %lld", (long long)k, (long long)x->dims[a]);
  int64_t dims[ZN_MAX_RANK];
  memcpy(dims, x->dims, sizeof dims);
  dims[a] = k;
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, dims));
  if (e->num_out > 1) ZN_TRY(zn_ev_out(e, 1, ZN_I64, x->rank, dims));
  uint64_t outer, n, inner;
  zn_ev_split(x, a, &outer, &n, &inner);
  uint64_t *keys = ZN_ARRAY(e->tmp, uint64_t, n + 1), *tmp = ZN_ARRAY(e->tmp, uint64_t, n + 1);
  order o = {.v = x, .stride = inner, .len = 1, .sign = zn_node_int(e->n, "largest") ? -1 : 1};
  for (uint64_t j = 0; j < outer * inner; j++) {
    o.base = j / inner * n * inner + j % inner;
    for (uint64_t i = 0; i < n; i++) keys[i] = i;
    sort_keys(&o, keys, tmp, n);
    for (uint64_t i = 0; i < (uint64_t)k; i++) {
      uint64_t at = (j / inner * (uint64_t)k + i) * inner + j % inner;
      zn_ev_copy1(e->out[0].u.p, at, x->u.p, o.base + keys[i] * inner,
                  zn_ev_esize((zn_dtype)x->dtype));
      if (e->num_out > 1) e->out[1].u.i[at] = (int64_t)keys[i];
    }
  }
  return ZN_OK;
}

/* Keys are slices along the axis (or single elements); outputs describe the distinct ones. */
zn_status zn_eval_unique(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  bool flat = !zn_node_has(e->n, "axis"), sorted = zn_node_int(e->n, "sorted") != 0;
  uint32_t a = 0;
  uint64_t outer = 1, n = x->count, inner = 1;
  if (!flat) {
    ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "axis"), x->rank, &a));
    zn_ev_split(x, a, &outer, &n, &inner);
  }
  zn_eval_val slices = *x; /* one slice per row, so that a key is contiguous */
  double *rows = NULL;
  size_t es = zn_ev_esize((zn_dtype)x->dtype);
  if (!flat) {
    rows = zn_arena_array(e->tmp, x->count + 1, es);
    for (uint64_t k = 0; k < n; k++)
      for (uint64_t o = 0; o < outer; o++)
        for (uint64_t i = 0; i < inner; i++)
          zn_ev_copy1(rows, (k * outer + o) * inner + i, x->u.p, (o * n + k) * inner + i, es);
    slices.u.p = rows;
  }
  order ord = {.v = &slices, .stride = outer * inner, .len = outer * inner, .step = 1, .sign = 1};
  uint64_t *keys = ZN_ARRAY(e->tmp, uint64_t, n + 1), *tmp = ZN_ARRAY(e->tmp, uint64_t, n + 1),
           m = 0;
  int64_t *group = ZN_ARRAY(e->tmp, int64_t, n + 1);   /* of each key */
  uint64_t *first = ZN_ARRAY(e->tmp, uint64_t, n + 1); /* first key of each group */
  for (uint64_t k = 0; k < n; k++) keys[k] = k;
  sort_keys(&ord, keys, tmp, n);
  for (uint64_t k = 0; k < n; k++) {
    if (k == 0 || cmp_keys(&ord, keys[k - 1], keys[k]) != 0) first[m++] = keys[k];
    group[keys[k]] = (int64_t)m - 1;
  }
  uint64_t *rank = ZN_ARRAY(e->tmp, uint64_t, m + 1); /* output position of each group */
  for (uint64_t g = 0; g < m; g++) {
    rank[g] = g;
    for (uint64_t h = 0, before = 0; !sorted && h < m; h++) {
      before += first[h] < first[g];
      rank[g] = before;
    }
  }
  int64_t dims[ZN_MAX_RANK], nm = (int64_t)m, nn = (int64_t)n;
  memcpy(dims, x->dims, sizeof dims);
  if (!flat) dims[a] = nm;
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, flat ? 1 : x->rank, flat ? &nm : dims));
  for (uint32_t i = 1; i < e->num_out; i++) ZN_TRY(zn_ev_out(e, i, ZN_I64, 1, i == 2 ? &nn : &nm));
  for (uint64_t g = 0; g < m; g++) {
    for (uint64_t o = 0; o < outer; o++)
      for (uint64_t i = 0; i < inner; i++)
        zn_ev_copy1(e->out[0].u.p, (o * m + rank[g]) * inner + i, x->u.p,
                    (o * n + first[g]) * inner + i, es);
    if (e->num_out > 1) e->out[1].u.i[rank[g]] = (int64_t)first[g];
  }
  for (uint64_t k = 0; k < n; k++) {
    if (e->num_out > 2) e->out[2].u.i[k] = (int64_t)rank[group[k]];
    if (e->num_out > 3) e->out[3].u.i[rank[group[k]]]++;
  }
  return ZN_OK;
}

static bool nonzero_at(const zn_eval_val *x, uint64_t k) {
  zn_dtype t = (zn_dtype)x->dtype;
  if (t == ZN_STR) return x->u.s[k].len != 0;
  if (zn_ev_is_cplx(t)) return x->u.f[2 * k] != 0 || x->u.f[2 * k + 1] != 0;
  return zn_is_float(t) ? x->u.f[k] != 0 : x->u.i[k] != 0;
}

zn_status zn_eval_nonzero(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  int64_t n = 0, ix[ZN_MAX_RANK] = {0}, at = 0;
  for (uint64_t k = 0; k < x->count; k++) n += nonzero_at(x, k);
  uint32_t rank = x->rank;
  int64_t dims[2] = {rank, n};
  ZN_TRY(zn_ev_out(e, 0, ZN_I64, 2, dims));
  for (uint64_t k = 0; k < x->count; k++, zn_ev_next(rank, x->dims, ix)) {
    if (!nonzero_at(x, k)) continue;
    for (uint32_t d = 0; d < rank; d++) e->out[0].u.i[(int64_t)d * n + at] = ix[d];
    at++;
  }
  return ZN_OK;
}

zn_status zn_eval_compress(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *c = e->in[1];
  bool flat = !zn_node_has(e->n, "axis");
  uint32_t a = 0;
  uint64_t outer = 1, n = x->count, inner = 1, at = 0;
  if (!flat) {
    ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "axis"), x->rank, &a));
    zn_ev_split(x, a, &outer, &n, &inner);
  }
  int64_t m = 0, dims[ZN_MAX_RANK];
  uint64_t len = c->count < n ? c->count : n;
  for (uint64_t k = 0; k < len; k++) m += c->u.i[k] != 0;
  memcpy(dims, x->dims, sizeof dims);
  if (!flat) dims[a] = m;
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, flat ? 1 : x->rank, flat ? &m : dims));
  size_t es = zn_ev_esize((zn_dtype)x->dtype);
  for (uint64_t o = 0; o < outer; o++)
    for (uint64_t k = 0; k < len; k++)
      if (c->u.i[k])
        memcpy((char *)e->out[0].u.p + at++ * inner * es,
               (const char *)x->u.p + (o * n + k) * inner * es, inner * es);
  return ZN_OK;
}

/* ---- NonMaxSuppression ---- */
typedef struct box {
  float y0, x0, y1, x1;
} box;

static box box_at(const double *b, bool center) {
  box r;
  if (center) {
    float w = (float)b[2] / 2, h = (float)b[3] / 2;
    r = (box){(float)b[1] - h, (float)b[0] - w, (float)b[1] + h, (float)b[0] + w};
  } else {
    r = (box){fminf((float)b[0], (float)b[2]), fminf((float)b[1], (float)b[3]),
              fmaxf((float)b[0], (float)b[2]), fmaxf((float)b[1], (float)b[3])};
  }
  return r;
}

/* A decision: taken in float, the declared type. */
static bool overlaps(const box *a, const box *b, float threshold) {
  float h = fminf(a->y1, b->y1) - fmaxf(a->y0, b->y0),
        w = fminf(a->x1, b->x1) - fmaxf(a->x0, b->x0);
  if (h <= 0 || w <= 0) return false;
  float both = h * w, sa = (a->y1 - a->y0) * (a->x1 - a->x0),
        sb = (b->y1 - b->y0) * (b->x1 - b->x0);
  if (sa <= 0 || sb <= 0) return false;
  return both / (sa + sb - both) > threshold;
}

zn_status zn_eval_nonmaxsuppression(zn_ev *e) {
  const zn_eval_val *boxes = e->in[0], *scores = e->in[1], *mv = zn_ev_in(e, 2),
                    *iv = zn_ev_in(e, 3), *sv = zn_ev_in(e, 4);
  if (boxes->rank != 3 || scores->rank != 3 || boxes->dims[2] != 4 ||
      boxes->dims[0] != scores->dims[0] || boxes->dims[1] != scores->dims[2])
    return zn_ev_fail(e, "boxes [N,B,4] and scores [N,C,B] do not match");
  int64_t max = mv && mv->count ? mv->u.i[0] : 0, B = boxes->dims[1], C = scores->dims[1],
          N = boxes->dims[0];
  float iou = iv && iv->count ? (float)iv->u.f[0] : 0;
  bool center = zn_node_int(e->n, "center_point_box") != 0;
  uint64_t *keys = ZN_ARRAY(e->tmp, uint64_t, B + 1), *tmp = ZN_ARRAY(e->tmp, uint64_t, B + 1);
  box *kept = ZN_ARRAY(e->tmp, box, B + 1);
  int64_t *sel = NULL;
  uint32_t num = 0, cap = 0;
  for (int64_t nc = 0; nc < N * C; nc++) {
    order o = {.v = scores, .base = (uint64_t)(nc * B), .stride = 1, .len = 1, .sign = -1};
    uint64_t n = 0;
    for (int64_t b = 0; b < B; b++)
      if (!sv || !sv->count || (float)scores->u.f[nc * B + b] > (float)sv->u.f[0])
        keys[n++] = (uint64_t)b;
    sort_keys(&o, keys, tmp, n);
    int64_t got = 0;
    for (uint64_t k = 0; k < n && got < max; k++) {
      box b = box_at(boxes->u.f + ((nc / C) * B + (int64_t)keys[k]) * 4, center);
      bool drop = false;
      for (int64_t j = 0; j < got && !drop; j++) drop = overlaps(&kept[j], &b, iou);
      if (drop) continue;
      kept[got++] = b;
      ZN_PUSH(e->tmp, sel, num, cap, nc / C);
      ZN_PUSH(e->tmp, sel, num, cap, nc % C);
      ZN_PUSH(e->tmp, sel, num, cap, (int64_t)keys[k]);
    }
  }
  int64_t dims[2] = {num / 3, 3};
  ZN_TRY(zn_ev_out(e, 0, ZN_I64, 2, dims));
  if (num) memcpy(e->out[0].u.i, sel, num * sizeof *sel);
  return ZN_OK;
}
