/* Derivatives of products, convolutions and pools. The adjoint of a convolution's image is a transposed convolution, that of
 * its weight a convolution of the image with the result's adjoint, strides and dilations exchanged and the batch as channels.
 * Both may come out longer than what they belong to, and are cut: so no size enters, and sizes may be symbols. */
#include "zenithc/ops/grad.h"

static zn_dtype type_of(const zn_grad *a, zn_vid v) { return (zn_dtype)zn_grad_type(a, v)->dtype; }
static int rank_of(const zn_grad *a, zn_vid v) { return zn_grad_type(a, v)->rank; }

/* ---------------------------------------------------------------- products */

static zn_vid last_two_swapped(zn_grad *a, zn_vid v) {
  int64_t perm[ZN_MAX_RANK];
  const int rank = rank_of(a, v);
  for (int d = 0; d < rank; d++) perm[d] = d < rank - 2 ? d : 2 * rank - 3 - d;
  return zn_rw_transpose(&a->w, v, perm, (uint32_t)rank);
}

void zn_grad_matmul(zn_grad *a) {
  zn_rw *w = &a->w;
  zn_vid x = zn_grad_in(a, 0), y = zn_grad_in(a, 1), dz = zn_grad_of(a, 0);
  const bool row = rank_of(a, x) == 1, column = rank_of(a, y) == 1;
  const int64_t first = 0, second = 1, last = -1, before_last = column ? -1 : -2;
  if (row) x = zn_rw_unsqueeze(w, x, &first, 1), dz = zn_rw_unsqueeze(w, dz, &before_last, 1);
  if (column) y = zn_rw_unsqueeze(w, y, &second, 1), dz = zn_rw_unsqueeze(w, dz, &last, 1);
  if (zn_grad_wants(a, 0)) zn_grad_give(a, 0, zn_rw2(w, ZN_OP_MatMul, dz, last_two_swapped(a, y)));
  if (!zn_grad_wants(a, 1)) return;
  const zn_vid dy = zn_rw2(w, ZN_OP_MatMul, last_two_swapped(a, x), dz);
  zn_grad_give(a, 1, column ? zn_rw_squeeze(w, dy, &last, 1) : dy);
}

static zn_vid scaled(zn_grad *a, zn_vid v, double by) {
  return by == 1 || a->w.st != ZN_OK ? v : zn_rw2(&a->w, ZN_OP_Mul, v, zn_rw_num(&a->w, type_of(a, v), by));
}

void zn_grad_gemm(zn_grad *a) {
  zn_rw *w = &a->w;
  const zn_node *n = zn_grad_node(a);
  const bool tx = zn_node_int(n, "transA") != 0, ty = zn_node_int(n, "transB") != 0;
  const double alpha = zn_node_float(n, "alpha"), beta = zn_node_float(n, "beta");
  const zn_vid x = zn_grad_in(a, 0), y = zn_grad_in(a, 1), dz = zn_grad_of(a, 0), s = scaled(a, dz, alpha);
  if (zn_grad_wants(a, 0)) {
    const zn_vid dx = zn_rw2(w, ZN_OP_MatMul, s, ty ? y : last_two_swapped(a, y));
    zn_grad_give(a, 0, tx ? last_two_swapped(a, dx) : dx);
  }
  if (zn_grad_wants(a, 1)) {
    const zn_vid dy = zn_rw2(w, ZN_OP_MatMul, tx ? x : last_two_swapped(a, x), s);
    zn_grad_give(a, 1, ty ? last_two_swapped(a, dy) : dy);
  }
  if (zn_grad_wants(a, 2)) zn_grad_give(a, 2, scaled(a, dz, beta));
}

/* ---------------------------------------------------------------- Einsum */

enum { MAX_TERMS = 16, MAX_LABELS = 64 };
typedef struct equation { /* labels per term, '.' for the ellipsis; the last term is the result */
  char term[MAX_TERMS + 1][MAX_LABELS];
  uint32_t n; /* operands */
} equation;

static bool appears(const char *labels, char l) { return strchr(labels, l) != NULL; }

/* Without an arrow: the ellipsis, then the labels that stand once, in order of the alphabet. */
static void implied_result(equation *e) {
  char *out = e->term[e->n];
  for (uint32_t i = 0; i < e->n; i++)
    if (appears(e->term[i], '.')) out[0] = '.';
  for (int l = 'A'; l <= 'z'; l++) {
    int count = 0;
    for (uint32_t i = 0; i < e->n; i++)
      for (const char *p = e->term[i]; *p; p++) count += *p == l;
    if (count == 1) out[strlen(out)] = (char)l;
  }
}

static bool read_equation(const char *s, equation *e) {
  *e = (equation){0};
  uint32_t term = 0, len = 0;
  bool arrow = false;
  for (; *s; s++) {
    if (*s == ' ') continue;
    if (*s == ',' || *s == '-') {
      if (++term > MAX_TERMS) return false;
      len = 0;
      if (*s == '-') arrow = true, s++;
      continue;
    }
    if (len + 2 > MAX_LABELS) return false;
    e->term[term][len++] = *s;
    if (*s == '.') s += 2;
  }
  e->n = arrow ? term : term + 1;
  if (!arrow) implied_result(e);
  return true;
}

static void put_term(zn_text *t, const char *labels) {
  for (; *labels; labels++) {
    if (*labels == '.') zn_text_puts(t, "...");
    else zn_text_put(t, labels, 1);
  }
}

/* The product of the result's adjoint and the other operands, over what operand i lacks; labels that only operand i has were
 * summed, and its adjoint is the same along them. */
static void einsum_operand(zn_grad *a, const equation *e, uint32_t i) {
  zn_rw *w = &a->w;
  const char *own = e->term[i];
  char left[MAX_LABELS] = "";
  int64_t missing[ZN_MAX_RANK];
  uint32_t n = 0;
  const int more = zn_grad_type(a, zn_grad_in(a, i))->rank - (int)strlen(own); /* axes of the ellipsis, less one */
  int axis = 0;
  for (const char *p = own; *p; axis += *p == '.' ? more + 1 : 1, p++) {
    bool elsewhere = appears(e->term[e->n], *p);
    for (uint32_t k = 0; k < e->n; k++) elsewhere |= k != i && *p != '.' && appears(e->term[k], *p);
    if (appears(p + 1, *p) || (!elsewhere && *p == '.')) {
      zn_grad_refuse(a, "Einsum '%s' has no derivative in operand %u here", zn_node_str(zn_grad_node(a), "equation"), i + 1);
      return;
    }
    if (elsewhere) left[strlen(left)] = *p;
    else missing[n++] = axis;
  }
  zn_text t;
  zn_text_init(&t, &w->c->tmp);
  put_term(&t, e->term[e->n]);
  zn_vid *in = ZN_ARRAY(&w->c->tmp, zn_vid, e->n);
  uint32_t num = 0;
  in[num++] = zn_grad_of(a, 0);
  for (uint32_t k = 0; k < e->n; k++) {
    if (k == i) continue;
    in[num++] = zn_grad_in(a, k);
    zn_text_puts(&t, ",");
    put_term(&t, e->term[k]);
  }
  zn_text_puts(&t, "->");
  put_term(&t, left);
  const zn_nid id = zn_rw_raw(w, ZN_OP_Einsum, in, num, 1);
  if (!id) return;
  zn_node_set_str(w->g, id, "equation", t.s);
  zn_vid d = zn_rw_infer(w, id);
  if (n) d = zn_grad_expand_to(a, zn_rw_unsqueeze(w, d, missing, n), zn_grad_in(a, i));
  zn_grad_give(a, i, d);
}

void zn_grad_einsum(zn_grad *a) {
  equation e;
  if (!read_equation(zn_node_str(zn_grad_node(a), "equation"), &e) || e.n != zn_grad_node(a)->num_in) {
    zn_grad_refuse(a, "the equation of Einsum cannot be read");
    return;
  }
  for (uint32_t i = 0; i < e.n && a->w.st == ZN_OK; i++)
    if (zn_grad_wants(a, i)) einsum_operand(a, &e, i);
}

/* ---------------------------------------------------------------- convolutions */

typedef struct window {
  uint32_t n; /* spatial axes */
  int64_t kernel[ZN_MAX_RANK], stride[ZN_MAX_RANK], dilation[ZN_MAX_RANK], lo[ZN_MAX_RANK], hi[ZN_MAX_RANK], group;
} window;

/* SAME_*: what canon writes out as well, where sizes are known. */
static bool same_pads(zn_grad *a, zn_vid x, zn_vid y, bool upper, window *k) {
  for (uint32_t d = 0; d < k->n; d++) {
    int64_t in, out;
    if (!zn_ex_is_const(a->w.g->ex, zn_grad_type(a, x)->dims[2 + d], &in) ||
        !zn_ex_is_const(a->w.g->ex, zn_grad_type(a, y)->dims[2 + d], &out))
      return false;
    int64_t total = (out - 1) * k->stride[d] + (k->kernel[d] - 1) * k->dilation[d] + 1 - in;
    if (total < 0) total = 0;
    k->lo[d] = upper ? total / 2 : total - total / 2;
    k->hi[d] = total - k->lo[d];
  }
  return true;
}

/* Attributes of a convolution or pool from image x to y; false: refused. */
static bool read_window(zn_grad *a, zn_vid x, zn_vid y, zn_vid weight, window *k) {
  static const char *const lists[] = {"kernel_shape", "strides", "dilations", "pads"};
  const zn_node *n = zn_grad_node(a);
  const int64_t *v[4];
  *k = (window){.n = (uint32_t)rank_of(a, x) - 2, .group = weight ? zn_node_int(n, "group") : 1};
  for (uint32_t l = 0; l < 4; l++) {
    uint32_t num;
    v[l] = zn_node_ints(n, lists[l], &num);
    if (!num) v[l] = NULL;
  }
  for (uint32_t d = 0; d < k->n; d++) {
    k->stride[d] = v[1] ? v[1][d] : 1;
    k->dilation[d] = v[2] ? v[2][d] : 1;
    k->lo[d] = v[3] ? v[3][d] : 0;
    k->hi[d] = v[3] ? v[3][k->n + d] : 0;
    if (v[0]) k->kernel[d] = v[0][d];
    else if (!zn_ex_is_const(a->w.g->ex, zn_grad_type(a, weight)->dims[2 + d], &k->kernel[d])) k->kernel[d] = 1;
  }
  const char *pad = zn_node_str(n, "auto_pad");
  if (!strcmp(pad, "NOTSET")) return true;
  if (!strcmp(pad, "VALID")) {
    for (uint32_t d = 0; d < k->n; d++) k->lo[d] = k->hi[d] = 0;
    return true;
  }
  if (same_pads(a, x, y, !strcmp(pad, "SAME_UPPER"), k)) return true;
  zn_grad_refuse(a, "auto_pad %s with sizes that only the run knows has no derivative here", pad);
  return false;
}

static zn_vid convolve(zn_grad *a, zn_op op, zn_vid x, zn_vid weight, const window *k, const int64_t *stride,
                       const int64_t *dilation, bool cut_end) {
  zn_rw *w = &a->w;
  const zn_vid in[2] = {x, weight};
  const zn_nid n = zn_rw_raw(w, op, in, 2, 1);
  if (!n) return 0;
  int64_t pads[2 * ZN_MAX_RANK], more[ZN_MAX_RANK];
  for (uint32_t d = 0; d < k->n; d++) {
    pads[d] = k->lo[d];
    pads[k->n + d] = cut_end ? 0 : k->hi[d];
    more[d] = stride[d] - 1;
  }
  zn_node_set_ints(w->g, n, "pads", pads, 2 * k->n);
  zn_node_set_ints(w->g, n, "strides", stride, k->n);
  zn_node_set_ints(w->g, n, "dilations", dilation, k->n);
  if (op == ZN_OP_ConvTranspose) zn_node_set_ints(w->g, n, "output_padding", more, k->n);
  zn_node_set_int(w->g, n, "group", k->group);
  return zn_rw_infer(w, n);
}

/* The first elements along the spatial axes, as many as `like` has. */
static zn_vid cut_to(zn_grad *a, zn_vid v, zn_vid like) {
  zn_rw *w = &a->w;
  const int64_t rank = rank_of(a, like);
  int64_t zero[ZN_MAX_RANK] = {0}, axes[ZN_MAX_RANK];
  for (int64_t d = 2; d < rank; d++) axes[d - 2] = d;
  const uint32_t n = (uint32_t)rank - 2;
  const zn_vid end = zn_rw_slice(w, zn_rw1(w, ZN_OP_Shape, like), 0, 2, rank), start = zn_rw_ints(w, zero, n);
  const zn_vid in[4] = {v, start, end, zn_rw_ints(w, axes, n)};
  return n ? zn_rw_op(w, ZN_OP_Slice, in, 4) : v;
}

/* Adjoint of the image that `k` made y from: all that reaches it, and beyond its end. */
static zn_vid image_back(zn_grad *a, zn_vid dy, zn_vid weight, const window *k, zn_vid like) {
  return cut_to(a, convolve(a, ZN_OP_ConvTranspose, dy, weight, k, k->stride, k->dilation, true), like);
}

static zn_vid first_two_swapped(zn_grad *a, zn_vid v) {
  int64_t perm[ZN_MAX_RANK];
  const int rank = rank_of(a, v);
  for (int d = 0; d < rank; d++) perm[d] = d < 2 ? 1 - d : d;
  return zn_rw_transpose(&a->w, v, perm, (uint32_t)rank);
}

static zn_vid with_front(zn_grad *a, zn_vid v, const zn_vid *front, uint32_t n) {
  zn_rw *w = &a->w;
  zn_vid parts[4];
  for (uint32_t i = 0; i < n; i++) parts[i] = front[i];
  const zn_vid shape = zn_rw1(w, ZN_OP_Shape, v);
  parts[n] = zn_rw_slice(w, shape, 0, 2, INT64_MAX);
  return zn_rw_attr_int(w, ZN_OP_Concat, parts, n + 1, "axis", 0);
}

/* Channels of each group first, then group and batch as one: [n, g c, ...] to [c, g n, ...]. */
static zn_vid batch_as_channels(zn_grad *a, zn_vid x, int64_t groups) {
  zn_rw *w = &a->w;
  if (groups == 1) return first_two_swapped(a, x);
  const int rank = rank_of(a, x);
  if (rank + 1 > ZN_MAX_RANK) {
    zn_grad_refuse(a, "groups of images with %d axes have no derivative here", rank - 2);
    return x;
  }
  const int64_t rest = -1;
  const zn_vid n = zn_rw_slice(w, zn_rw1(w, ZN_OP_Shape, x), 0, 0, 1);
  const zn_vid any = zn_rw_ints(w, &rest, 1), apart[3] = {n, zn_rw_ints(w, &groups, 1), any};
  const zn_vid split = zn_rw2(w, ZN_OP_Reshape, x, with_front(a, x, apart, 3));
  int64_t perm[ZN_MAX_RANK];
  for (int d = 0; d <= rank; d++) perm[d] = d < 3 ? 2 - d : d;
  const zn_vid turned = zn_rw_transpose(w, split, perm, (uint32_t)rank + 1);
  const zn_vid channels = zn_rw_slice(w, zn_rw1(w, ZN_OP_Shape, turned), 0, 0, 1);
  const zn_vid joined[2] = {channels, any};
  return zn_rw2(w, ZN_OP_Reshape, turned, with_front(a, x, joined, 2));
}

/* Adjoint of the weight of a convolution from `image` to `result`, one of them given by its adjoint. */
static zn_vid weight_back(zn_grad *a, zn_vid image, zn_vid result, const window *k, zn_vid weight) {
  const zn_vid x = batch_as_channels(a, image, k->group), y = first_two_swapped(a, result);
  if (a->failed) return 0;
  const zn_vid dw = convolve(a, ZN_OP_Conv, x, y, k, k->dilation, k->stride, false);
  return cut_to(a, first_two_swapped(a, dw), weight);
}

static zn_vid bias_back(zn_grad *a, zn_vid dy) {
  int64_t axes[ZN_MAX_RANK];
  uint32_t n = 0;
  for (int d = 0; d < rank_of(a, dy); d++)
    if (d != 1) axes[n++] = d;
  return zn_rw_reduce(&a->w, ZN_OP_ReduceSum, dy, axes, n, false);
}

void zn_grad_conv(zn_grad *a) {
  window k;
  const zn_vid x = zn_grad_in(a, 0), weight = zn_grad_in(a, 1), dy = zn_grad_of(a, 0);
  if (!read_window(a, x, zn_grad_out(a, 0), weight, &k)) return;
  if (zn_grad_wants(a, 0)) zn_grad_give(a, 0, image_back(a, dy, weight, &k, x));
  if (zn_grad_wants(a, 1)) zn_grad_give(a, 1, weight_back(a, x, dy, &k, weight));
  if (zn_grad_wants(a, 2)) zn_grad_give(a, 2, bias_back(a, dy));
}

void zn_grad_convtranspose(zn_grad *a) {
  window k;
  const zn_node *n = zn_grad_node(a);
  const zn_vid x = zn_grad_in(a, 0), weight = zn_grad_in(a, 1), dy = zn_grad_of(a, 0);
  if (strcmp(zn_node_str(n, "auto_pad"), "NOTSET") || zn_node_has(n, "output_shape")) {
    zn_grad_refuse(a, "ConvTranspose with auto_pad or output_shape has no derivative here");
    return;
  }
  if (!read_window(a, zn_grad_out(a, 0), x, weight, &k)) return;
  if (zn_grad_wants(a, 0))
    zn_grad_give(a, 0, cut_to(a, convolve(a, ZN_OP_Conv, dy, weight, &k, k.stride, k.dilation, false), x));
  if (zn_grad_wants(a, 1)) zn_grad_give(a, 1, weight_back(a, dy, x, &k, weight));
  if (zn_grad_wants(a, 2)) zn_grad_give(a, 2, bias_back(a, dy));
}

/* ---------------------------------------------------------------- pools */

/* Pooling tells where each maximum stood: its number in the whole tensor. */
void zn_grad_maxpool(zn_grad *a) {
  zn_rw *w = &a->w;
  zn_graph *g = w->g;
  const zn_vid x = zn_grad_in(a, 0), dy = zn_grad_of(a, 0);
  const zn_nid n = zn_rw_raw(w, ZN_OP_MaxPool, &x, 1, 2);
  const zn_node m = *zn_grad_node(a);
  const int64_t all = -1;
  if (!n) return;
  for (uint32_t k = 0; k < m.num_attrs; k++) zn_node_set_attr(g, n, m.attrs[k]);
  zn_node_set_int(g, n, "storage_order", 0);
  zn_rw_infer(w, n);
  if (w->st != ZN_OK) return;
  const zn_vid count = zn_rw_reshape_to(w, zn_rw1(w, ZN_OP_Size, x), &all, 1);
  const zn_vid zeros = zn_rw2(w, ZN_OP_Expand, zn_rw_num(w, type_of(a, dy), 0), count);
  const zn_vid at = zn_rw_reshape_to(w, g->nodes[n].out[1], &all, 1);
  const zn_vid in[3] = {zeros, at, zn_rw_reshape_to(w, dy, &all, 1)};
  const zn_nid s = zn_rw_raw(w, ZN_OP_ScatterElements, in, 3, 1);
  if (!s) return;
  zn_node_set_str(g, s, "reduction", "add");
  zn_grad_give(a, 0, zn_grad_shaped(a, zn_rw_infer(w, s), x));
}

/* A convolution of each channel by ones, over the number of elements that each window has. */
void zn_grad_averagepool(zn_grad *a) {
  zn_rw *w = &a->w;
  window k;
  const zn_vid x = zn_grad_in(a, 0), dy = zn_grad_of(a, 0);
  const bool padded = zn_node_int(zn_grad_node(a), "count_include_pad") != 0;
  if (!read_window(a, x, zn_grad_out(a, 0), 0, &k)) return;
  if (padded && zn_node_int(zn_grad_node(a), "ceil_mode")) {
    zn_grad_refuse(a, "AveragePool with ceil_mode and count_include_pad has no derivative here");
    return;
  }
  int64_t shape[ZN_MAX_RANK] = {1, 1};
  for (uint32_t d = 0; d < k.n; d++) shape[2 + d] = k.kernel[d];
  const int64_t rest = -1, one = 1;
  const zn_vid unit = zn_rw_num(w, type_of(a, x), 1), ones = zn_rw2(w, ZN_OP_Expand, unit, zn_rw_ints(w, shape, k.n + 2));
  const zn_vid any = zn_rw_ints(w, &rest, 1), first = zn_rw_ints(w, &one, 1);
  const zn_vid front[2] = {any, first}, single[2] = {first, first};
  zn_vid g = zn_rw2(w, ZN_OP_Reshape, dy, with_front(a, dy, front, 2));
  double all = 1;
  for (uint32_t d = 0; d < k.n; d++) all *= (double)k.kernel[d];
  if (padded) {
    g = zn_rw2(w, ZN_OP_Div, g, zn_rw_num(w, type_of(a, x), all));
  } else { /* windows may reach beyond the end (ceil_mode) */
    window c = k;
    for (uint32_t d = 0; d < k.n; d++) c.hi[d] += k.stride[d] - 1;
    const zn_vid image = zn_rw2(w, ZN_OP_Expand, unit, with_front(a, x, single, 2));
    const zn_vid count = convolve(a, ZN_OP_Conv, image, ones, &c, k.stride, k.dilation, false);
    g = zn_rw2(w, ZN_OP_Div, g, cut_to(a, count, dy));
  }
  zn_grad_give(a, 0, zn_grad_shaped(a, image_back(a, g, ones, &k, x), x));
}
