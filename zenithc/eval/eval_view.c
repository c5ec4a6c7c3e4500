/* Index maps: operators that move elements without computing with them. */
#include "zenithc/eval/eval_impl.h"

zn_status zn_eval_identity(zn_ev *e) {
  e->out[0] = zn_ev_share(e->in[0]);
  return ZN_OK;
}

zn_status zn_eval_require(zn_ev *e) {
  if (e->in[1]->count != 1 || (e->in[1]->u.i[0] != 0) != (zn_node_int(e->n, "value") != 0))
    return zn_ev_fail(e, "the condition is not what the rest of the model needs");
  e->out[0] = zn_ev_share(e->in[0]);
  return ZN_OK;
}

/* ---- Reshape, Flatten, Squeeze, Unsqueeze ---- */
static zn_status reshape(zn_ev *e, const zn_eval_val *x) {
  const int64_t *shape;
  uint32_t n;
  if (!zn_ev_ints(e, 1, &shape, &n)) return zn_ev_fail(e, "shape is missing");
  if (n > ZN_MAX_RANK) return zn_ev_fail(e, "rank %u exceeds %d", n, ZN_MAX_RANK);
  bool zero = zn_node_int(e->n, "allowzero") != 0;
  int64_t dims[ZN_MAX_RANK];
  uint64_t known = 1;
  int hole = -1;
  for (uint32_t d = 0; d < n; d++) {
    dims[d] = shape[d];
    if (shape[d] == 0 && !zero) {
      if (d >= x->rank)
        return zn_ev_fail(e, "shape copies dimension %u of a rank %u input", d, x->rank);
      dims[d] = x->dims[d];
    }
    if (dims[d] < -1 || (dims[d] == -1 && hole >= 0))
      return zn_ev_fail(e, "the shape is not valid");
    if (dims[d] == -1) hole = (int)d;
    else known *= (uint64_t)dims[d];
  }
  if (hole >= 0) dims[hole] = known ? (int64_t)(x->count / known) : 0;
  if (zn_ev_count(n, dims) != x->count)
    return zn_ev_fail(e, "%llu elements do not fill the new shape", (unsigned long long)x->count);
  return zn_ev_view(e, 0, x, n, dims);
}

static zn_status squeeze(zn_ev *e, const zn_eval_val *x) {
  const int64_t *axes;
  uint32_t n, rank = 0;
  bool given = zn_ev_ints(e, 1, &axes, &n), drop[ZN_MAX_RANK] = {0};
  int64_t dims[ZN_MAX_RANK];
  for (uint32_t i = 0; i < n; i++) {
    uint32_t a;
    ZN_TRY(zn_ev_axis(e, axes[i], x->rank, &a));
    if (x->dims[a] != 1)
      return zn_ev_fail(e, "squeezed axis %u has extent %lld", a, (long long)x->dims[a]);
    drop[a] = true;
  }
  for (uint32_t d = 0; d < x->rank; d++)
    if (given ? !drop[d] : x->dims[d] != 1) dims[rank++] = x->dims[d];
  return zn_ev_view(e, 0, x, rank, dims);
}

static zn_status unsqueeze(zn_ev *e, const zn_eval_val *x) {
  const int64_t *axes;
  uint32_t n, from = 0;
  if (!zn_ev_ints(e, 1, &axes, &n)) return zn_ev_fail(e, "axes are missing");
  uint32_t rank = x->rank + n;
  if (rank > ZN_MAX_RANK) return zn_ev_fail(e, "rank %u exceeds %d", rank, ZN_MAX_RANK);
  bool one[ZN_MAX_RANK] = {0};
  int64_t dims[ZN_MAX_RANK];
  for (uint32_t i = 0; i < n; i++) {
    uint32_t a;
    ZN_TRY(zn_ev_axis(e, axes[i], rank, &a));
    if (one[a]) return zn_ev_fail(e, "axis %u is given twice", a);
    one[a] = true;
  }
  for (uint32_t d = 0; d < rank; d++) dims[d] = one[d] ? 1 : x->dims[from++];
  return zn_ev_view(e, 0, x, rank, dims);
}

zn_status zn_eval_copy(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  if (e->op == ZN_OP_Reshape) return reshape(e, x);
  if (e->op == ZN_OP_Squeeze) return squeeze(e, x);
  if (e->op == ZN_OP_Unsqueeze) return unsqueeze(e, x);
  int64_t axis = zn_node_int(e->n, "axis"); /* Flatten */
  if (axis < 0) axis += x->rank;
  if (axis < 0 || axis > (int64_t)x->rank) return zn_ev_fail(e, "axis is outside the rank");
  int64_t dims[2] = {(int64_t)zn_ev_count((uint32_t)axis, x->dims),
                     (int64_t)zn_ev_count(x->rank - (uint32_t)axis, x->dims + axis)};
  return zn_ev_view(e, 0, x, 2, dims);
}

zn_status zn_eval_shape(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  int64_t r = x->rank, lo = zn_node_int(e->n, "start"),
          hi = zn_node_has(e->n, "end") ? zn_node_int(e->n, "end") : r;
  lo = lo < 0 ? lo + r : lo;
  hi = hi < 0 ? hi + r : hi;
  lo = lo < 0 ? 0 : lo > r ? r : lo;
  hi = hi < lo ? lo : hi > r ? r : hi;
  int64_t n = hi - lo;
  ZN_TRY(zn_ev_out(e, 0, ZN_I64, 1, &n));
  for (int64_t i = 0; i < n; i++) e->out[0].u.i[i] = x->dims[lo + i];
  return ZN_OK;
}

zn_status zn_eval_size(zn_ev *e) {
  ZN_TRY(zn_ev_out(e, 0, ZN_I64, 0, NULL));
  e->out[0].u.i[0] = (int64_t)e->in[0]->count;
  return ZN_OK;
}

/* ---- strided maps ---- */
zn_status zn_eval_transpose(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  uint32_t n;
  const int64_t *perm = zn_node_ints(e->n, "perm", &n);
  if (perm && n != x->rank) return zn_ev_fail(e, "perm has %u items for rank %u", n, x->rank);
  int64_t xs[ZN_MAX_RANK], dims[ZN_MAX_RANK], st[ZN_MAX_RANK];
  bool used[ZN_MAX_RANK] = {0};
  zn_ev_strides(x->rank, x->dims, xs);
  for (uint32_t d = 0; d < x->rank; d++) {
    int64_t p = perm ? perm[d] : (int64_t)(x->rank - 1 - d);
    if (p < 0 || p >= (int64_t)x->rank || used[p])
      return zn_ev_fail(e, "perm is not a permutation");
    used[p] = true;
    dims[d] = x->dims[p];
    st[d] = xs[p];
  }
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, dims));
  zn_ev_gather(e->out[0].u.p, x->u.p, zn_ev_esize((zn_dtype)x->dtype), x->rank, dims, st, 0);
  return ZN_OK;
}

zn_status zn_eval_expand(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  const int64_t *shape;
  uint32_t n, rank;
  if (!zn_ev_ints(e, 1, &shape, &n) || n > ZN_MAX_RANK)
    return zn_ev_fail(e, "the shape is not valid");
  zn_eval_val want = {.set = true, .rank = n};
  for (uint32_t d = 0; d < n; d++) want.dims[d] = shape[d];
  const zn_eval_val *both[2] = {x, &want};
  int64_t dims[ZN_MAX_RANK], st[ZN_MAX_RANK];
  ZN_TRY(zn_ev_bcast(e, both, 2, &rank, dims));
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, rank, dims));
  zn_ev_bstrides(x, rank, st);
  zn_ev_gather(e->out[0].u.p, x->u.p, zn_ev_esize((zn_dtype)x->dtype), rank, dims, st, 0);
  return ZN_OK;
}

zn_status zn_eval_slice(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  const int64_t *starts, *ends, *axes, *steps;
  uint32_t n, ne, na, ns;
  if (!zn_ev_ints(e, 1, &starts, &n) || !zn_ev_ints(e, 2, &ends, &ne) || n != ne)
    return zn_ev_fail(e, "starts and ends differ in length");
  bool has_axes = zn_ev_ints(e, 3, &axes, &na), has_steps = zn_ev_ints(e, 4, &steps, &ns);
  if ((has_axes && na != n) || (has_steps && ns != n))
    return zn_ev_fail(e, "axes or steps differ in length");
  int64_t dims[ZN_MAX_RANK], st[ZN_MAX_RANK], base = 0;
  memcpy(dims, x->dims, sizeof dims);
  zn_ev_strides(x->rank, x->dims, st);
  for (uint32_t i = 0; i < n; i++) {
    uint32_t a;
    ZN_TRY(zn_ev_axis(e, has_axes ? axes[i] : (int64_t)i, x->rank, &a));
    int64_t len = x->dims[a], step = has_steps ? steps[i] : 1, lo = starts[i], hi = ends[i];
    if (step == 0) return zn_ev_fail(e, "a step is 0");
    lo = lo < 0 ? (lo < -len ? -1 : lo + len) : lo;
    hi = hi < 0 ? (hi < -len ? -1 : hi + len) : hi;
    if (step > 0) {
      lo = lo < 0 ? 0 : lo > len ? len : lo;
      hi = hi < 0 ? 0 : hi > len ? len : hi;
      dims[a] = hi > lo ? (hi - lo - 1) / step + 1 : 0;
    } else {
      lo = lo > len - 1 ? len - 1 : lo < 0 ? 0 : lo;
      hi = hi > len - 1 ? len - 1 : hi;
      dims[a] = len && lo > hi ? (lo - hi - 1) / (step == INT64_MIN ? INT64_MAX : -step) + 1 : 0;
    }
    if (dims[a]) base += lo * st[a];
    st[a] *= dims[a] > 1 ? step : 1;
  }
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, dims));
  zn_ev_gather(e->out[0].u.p, x->u.p, zn_ev_esize((zn_dtype)x->dtype), x->rank, dims, st, base);
  return ZN_OK;
}

zn_status zn_eval_concat(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  uint32_t axis;
  ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "axis"), x->rank, &axis));
  int64_t dims[ZN_MAX_RANK], total = 0;
  memcpy(dims, x->dims, sizeof dims);
  for (uint32_t i = 0; i < e->num_in; i++) {
    if (e->in[i]->rank != x->rank) return zn_ev_fail(e, "input %u has another rank", i + 1);
    for (uint32_t d = 0; d < x->rank; d++)
      if (d != axis && e->in[i]->dims[d] != x->dims[d])
        return zn_ev_fail(e, "input %u differs from input 1 in dimension %u", i + 1, d);
    total += e->in[i]->dims[axis];
  }
  dims[axis] = total;
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, dims));
  size_t es = zn_ev_esize((zn_dtype)x->dtype);
  uint64_t outer, n, inner, at = 0, row;
  zn_ev_split(&e->out[0], axis, &outer, &n, &inner);
  row = n * inner;
  for (uint32_t i = 0; i < e->num_in; i++) {
    uint64_t part = (uint64_t)e->in[i]->dims[axis] * inner;
    for (uint64_t o = 0; part && o < outer; o++)
      memcpy((char *)e->out[0].u.p + (o * row + at) * es,
             (const char *)e->in[i]->u.p + o * part * es, part * es);
    at += part;
  }
  return ZN_OK;
}

zn_status zn_eval_split(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  uint32_t axis, n;
  ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "axis"), x->rank, &axis));
  const int64_t *sizes;
  bool given = zn_ev_ints(e, 1, &sizes, &n);
  if (given && n != e->num_out)
    return zn_ev_fail(e, "split has %u items for %u outputs", n, e->num_out);
  int64_t len = x->dims[axis], chunk = (len + e->num_out - 1) / e->num_out, at = 0, st[ZN_MAX_RANK];
  zn_ev_strides(x->rank, x->dims, st);
  for (uint32_t i = 0; i < e->num_out; i++) {
    int64_t dims[ZN_MAX_RANK];
    memcpy(dims, x->dims, sizeof dims);
    dims[axis] = given ? sizes[i] : len - at < chunk ? len - at : chunk;
    if (dims[axis] < 0 || at + dims[axis] > len)
      return zn_ev_fail(e, "split sizes exceed the axis");
    ZN_TRY(zn_ev_out(e, i, (zn_dtype)x->dtype, x->rank, dims));
    zn_ev_gather(e->out[i].u.p, x->u.p, zn_ev_esize((zn_dtype)x->dtype), x->rank, dims, st,
                 at * st[axis]);
    at += dims[axis];
  }
  return at == len ? ZN_OK : zn_ev_fail(e, "split sizes do not add up to %lld", (long long)len);
}

zn_status zn_eval_tile(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  const int64_t *rep;
  uint32_t n;
  if (!zn_ev_ints(e, 1, &rep, &n) || n != x->rank)
    return zn_ev_fail(e, "repeats do not match the rank");
  int64_t dims[ZN_MAX_RANK], ix[ZN_MAX_RANK] = {0}, st[ZN_MAX_RANK];
  for (uint32_t d = 0; d < n; d++) {
    if (rep[d] < 0) return zn_ev_fail(e, "a repeat is negative");
    dims[d] = x->dims[d] * rep[d];
  }
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, n, dims));
  zn_ev_strides(n, x->dims, st);
  size_t es = zn_ev_esize((zn_dtype)x->dtype);
  for (uint64_t k = 0; k < e->out[0].count; k++, zn_ev_next(n, dims, ix)) {
    int64_t s = 0;
    for (uint32_t d = 0; d < n; d++) s += ix[d] % x->dims[d] * st[d];
    zn_ev_copy1(e->out[0].u.p, k, x->u.p, (uint64_t)s, es);
  }
  return ZN_OK;
}

/* Source index of padded position i, or -1 for the constant. */
static int64_t pad_index(int64_t i, int64_t lo, int64_t len, const char *mode) {
  int64_t s = i - lo;
  if (s >= 0 && s < len) return s;
  if (len == 0 || mode[0] == 'c') return -1;
  if (mode[0] == 'e') return s < 0 ? 0 : len - 1;
  if (mode[0] == 'w') return (s % len + len) % len;
  int64_t period = len > 1 ? 2 * (len - 1) : 1; /* reflect */
  s = (s % period + period) % period;
  return s < len ? s : period - s;
}

zn_status zn_eval_pad(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *cv = zn_ev_in(e, 2);
  const int64_t *pads, *axes;
  uint32_t n, na;
  if (!zn_ev_ints(e, 1, &pads, &n)) return zn_ev_fail(e, "pads are missing");
  bool has_axes = zn_ev_ints(e, 3, &axes, &na);
  if (!has_axes) na = x->rank;
  if (n != 2 * na) return zn_ev_fail(e, "pads has %u items for %u axes", n, na);
  int64_t lo[ZN_MAX_RANK] = {0}, dims[ZN_MAX_RANK], st[ZN_MAX_RANK], ix[ZN_MAX_RANK] = {0};
  memcpy(dims, x->dims, sizeof dims);
  for (uint32_t i = 0; i < na; i++) {
    uint32_t a;
    ZN_TRY(zn_ev_axis(e, has_axes ? axes[i] : (int64_t)i, x->rank, &a));
    lo[a] = pads[i];
    dims[a] += pads[i] + pads[i + na];
    if (dims[a] < 0) return zn_ev_fail(e, "pads remove more than axis %u holds", a);
  }
  const char *mode = zn_node_str(e->n, "mode");
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, dims));
  zn_ev_strides(x->rank, x->dims, st);
  size_t es = zn_ev_esize((zn_dtype)x->dtype);
  zn_str empty = {"", 0};
  for (uint64_t k = 0; k < e->out[0].count; k++, zn_ev_next(x->rank, dims, ix)) {
    int64_t s = 0;
    for (uint32_t d = 0; d < x->rank && s >= 0; d++) {
      int64_t i = pad_index(ix[d], lo[d], x->dims[d], mode);
      s = i < 0 ? -1 : s + i * st[d];
    }
    if (s >= 0) zn_ev_copy1(e->out[0].u.p, k, x->u.p, (uint64_t)s, es);
    else if (cv && cv->count) zn_ev_copy1(e->out[0].u.p, k, cv->u.p, 0, es);
    else if (x->dtype == ZN_STR) e->out[0].u.s[k] = empty;
  }
  return ZN_OK;
}

zn_status zn_eval_centercroppad(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  const int64_t *want;
  uint32_t n, na;
  if (!zn_ev_ints(e, 1, &want, &n)) return zn_ev_fail(e, "shape is missing");
  const int64_t *axes = zn_node_ints(e->n, "axes", &na);
  if (n != (axes ? na : x->rank)) return zn_ev_fail(e, "shape has %u items", n);
  int64_t dims[ZN_MAX_RANK], from[ZN_MAX_RANK] = {0}, st[ZN_MAX_RANK], ix[ZN_MAX_RANK] = {0};
  memcpy(dims, x->dims, sizeof dims);
  for (uint32_t i = 0; i < n; i++) {
    uint32_t a;
    ZN_TRY(zn_ev_axis(e, axes ? axes[i] : (int64_t)i, x->rank, &a));
    int64_t d = x->dims[a] - want[i];
    from[a] = d >= 0 ? d / 2 : -(-d / 2);
    dims[a] = want[i];
  }
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, dims));
  zn_ev_strides(x->rank, x->dims, st);
  for (uint64_t k = 0; k < e->out[0].count; k++, zn_ev_next(x->rank, dims, ix)) {
    int64_t s = 0;
    for (uint32_t d = 0; d < x->rank && s >= 0; d++) {
      int64_t i = ix[d] + from[d];
      s = i < 0 || i >= x->dims[d] ? -1 : s + i * st[d];
    }
    if (s >= 0) zn_ev_copy1(e->out[0].u.p, k, x->u.p, (uint64_t)s, zn_ev_esize((zn_dtype)x->dtype));
    else if (x->dtype == ZN_STR) e->out[0].u.s[k].ptr = "";
  }
  return ZN_OK;
}

/* b*b blocks between channels and space: out = x seen as rank 6, transposed. */
static zn_status permute6(zn_ev *e, const zn_eval_val *x, const int64_t *six, const int *perm,
                          const int64_t *dims) {
  int64_t xs[6], d6[6], st[6];
  zn_ev_strides(6, six, xs);
  for (int d = 0; d < 6; d++) {
    d6[d] = six[perm[d]];
    st[d] = xs[perm[d]];
  }
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, 4, dims));
  zn_ev_gather(e->out[0].u.p, x->u.p, zn_ev_esize((zn_dtype)x->dtype), 6, d6, st, 0);
  return ZN_OK;
}

zn_status zn_eval_depthtospace(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  int64_t b = zn_node_int(e->n, "blocksize");
  if (x->rank != 4 || b < 1 || x->dims[1] % (b * b))
    return zn_ev_fail(e, "channels do not divide into blocks");
  int64_t N = x->dims[0], C = x->dims[1] / (b * b), H = x->dims[2], W = x->dims[3];
  int64_t dims[4] = {N, C, H * b, W * b};
  if (strcmp(zn_node_str(e->n, "mode"), "CRD") == 0)
    return permute6(e, x, (int64_t[]){N, C, b, b, H, W}, (int[]){0, 1, 4, 2, 5, 3}, dims);
  return permute6(e, x, (int64_t[]){N, b, b, C, H, W}, (int[]){0, 3, 4, 1, 5, 2}, dims);
}

zn_status zn_eval_spacetodepth(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  int64_t b = zn_node_int(e->n, "blocksize");
  if (x->rank != 4 || b < 1 || x->dims[2] % b || x->dims[3] % b)
    return zn_ev_fail(e, "space does not divide into blocks");
  int64_t N = x->dims[0], C = x->dims[1], H = x->dims[2] / b, W = x->dims[3] / b;
  int64_t dims[4] = {N, C * b * b, H, W};
  if (strcmp(zn_node_str(e->n, "mode"), "CRD") == 0)
    return permute6(e, x, (int64_t[]){N, C, H, b, W, b}, (int[]){0, 1, 3, 5, 2, 4}, dims);
  return permute6(e, x, (int64_t[]){N, C, H, b, W, b}, (int[]){0, 3, 5, 1, 2, 4}, dims);
}

zn_status zn_eval_reversesequence(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *len = e->in[1];
  uint32_t ba, ta;
  ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "batch_axis"), x->rank, &ba));
  ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "time_axis"), x->rank, &ta));
  if (ba == ta || len->count != (uint64_t)x->dims[ba])
    return zn_ev_fail(e, "sequence_lens does not match the batch");
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  int64_t ix[ZN_MAX_RANK] = {0}, st[ZN_MAX_RANK];
  zn_ev_strides(x->rank, x->dims, st);
  for (uint64_t k = 0; k < x->count; k++, zn_ev_next(x->rank, x->dims, ix)) {
    int64_t n = len->u.i[ix[ba]], t = ix[ta];
    if (n < 0 || n > x->dims[ta]) return zn_ev_fail(e, "a sequence length exceeds the time axis");
    int64_t s = (int64_t)k + (t < n ? n - 1 - 2 * t : 0) * st[ta];
    zn_ev_copy1(e->out[0].u.p, k, x->u.p, (uint64_t)s, zn_ev_esize((zn_dtype)x->dtype));
  }
  return ZN_OK;
}

zn_status zn_eval_trilu(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *kv = zn_ev_in(e, 1);
  if (x->rank < 2) return zn_ev_fail(e, "input has rank %u, expected at least 2", x->rank);
  bool upper = zn_node_int(e->n, "upper") != 0;
  int64_t k = kv && kv->count ? kv->u.i[0] : 0;
  uint64_t cols = (uint64_t)x->dims[x->rank - 1], rows = (uint64_t)x->dims[x->rank - 2];
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  for (uint64_t i = 0; i < x->count; i++) {
    int64_t r = (int64_t)(i / cols % rows), c = (int64_t)(i % cols);
    if (upper ? c - r >= k : c - r <= k)
      zn_ev_copy1(e->out[0].u.p, i, x->u.p, i, zn_ev_esize((zn_dtype)x->dtype));
    else if (x->dtype == ZN_STR) e->out[0].u.s[i].ptr = "";
  }
  return ZN_OK;
}
