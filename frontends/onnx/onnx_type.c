/* Types of values, and symbolic dimensions with the command line's say in them. */
#include <errno.h>
#include <inttypes.h>

#include "frontends/onnx/import.h"

/* ---- --dim NAME=value, NAME=lo..hi ---- */

static bool parse_dim_opt(zn_imp *I, const char *text, struct zn_dim_opt *out) {
  const char *eq = strrchr(text, '=');
  if (!eq || eq == text) return false;
  out->name = zn_arena_strndup(I->pa, text, (size_t)(eq - text));
  char *end;
  errno = 0;
  out->lo = out->hi = strtoll(eq + 1, &end, 10);
  if (end == eq + 1) return false;
  if (!strncmp(end, "..", 2)) {
    const char *hi = end + 2;
    out->hi = strtoll(hi, &end, 10);
    if (end == hi) return false;
  }
  return *end == 0 && errno == 0 && out->lo >= 0 && out->hi >= out->lo;
}

static void note_pure_dims(zn_imp *I) {
  const Pb__GraphProto *g = I->m->graph;
  for (size_t i = 0; i < g->n_input; i++) {
    const Pb__TypeProto *t = g->input[i]->type;
    if (!t || !t->tensor_type || !t->tensor_type->shape) continue;
    const Pb__TensorShapeProto *s = t->tensor_type->shape;
    for (size_t k = 0; k < s->n_dim; k++) {
      const char *name = s->dim[k]->dim_param;
      if (name && *name && zn_nmap_put(&I->pure_dims, name, I->num_pure))
        ZN_PUSH(I->pa, I->pure_names, I->num_pure, I->cap_pure, name);
    }
  }
}

zn_status zn_imp_dims_init(zn_imp *I) {
  I->dim_opts.a = I->pure_dims.a = I->pa;
  I->dims = ZN_ARRAY(I->pa, struct zn_dim_opt, I->o->num_dims);
  for (uint32_t i = 0; i < I->o->num_dims; i++) {
    if (!parse_dim_opt(I, I->o->dims[i], &I->dims[i])) {
      zn_fail(I->c, ZN_ERR_USAGE, NULL, "--dim %s: expected NAME=8 or NAME=1..512", I->o->dims[i]);
      return ZN_ERR_USAGE;
    }
    zn_nmap_set(&I->dim_opts, I->dims[i].name, i);
  }
  note_pure_dims(I);
  return ZN_OK;
}

/* Names that the inputs' dimensions have, each once. */
static const char *dim_names(const zn_imp *I) {
  zn_text t;
  zn_text_init(&t, I->pa);
  for (uint32_t i = 0; i < I->num_pure; i++) zn_text_printf(&t, "%s%s", i ? ", " : "", I->pure_names[i]);
  return t.len ? t.s : "none, all sizes are numbers";
}

zn_status zn_imp_dims_check(zn_imp *I) {
  zn_status st = ZN_OK;
  for (uint32_t i = 0; i < I->o->num_dims; i++)
    if (!I->dims[i].used)
      st = zn_fail(I->c, ZN_ERR_USAGE, NULL, "--dim %s: no input has a dimension of that name", I->dims[i].name);
  if (st != ZN_OK) zn_help(I->c, "names of the inputs' dimensions: %s; --shape pins one that has none", dim_names(I));
  return st;
}

zn_expr zn_imp_symbol(zn_imp *I, const char *name) {
  uint32_t k;
  if (!zn_nmap_get(&I->dim_opts, name, &k)) return zn_ex_sym(I->ex, zn_arena_strdup(I->ga, name), 0, INT64_MAX);
  I->dims[k].used = true;
  if (I->dims[k].lo == I->dims[k].hi) return zn_ex_const(I->ex, I->dims[k].lo);
  return zn_ex_sym(I->ex, zn_arena_strdup(I->ga, name), I->dims[k].lo, I->dims[k].hi);
}

/* ---- dimension names that are sums and products of other dimensions: "past + 1", "2*s0" ---- */

typedef struct dim_parser {
  zn_imp *I;
  const char *p;
  unsigned depth;
  bool failed;
} dim_parser;

static void spaces(dim_parser *d) {
  while (*d->p == ' ') d->p++;
}
static bool word_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
}

static zn_expr dim_sum(dim_parser *d);
static zn_expr dim_atom(dim_parser *d) {
  spaces(d);
  if (*d->p == '(' && d->depth < 32) {
    d->p++;
    d->depth++;
    zn_expr e = dim_sum(d);
    d->depth--;
    spaces(d);
    d->failed = d->failed || *d->p != ')';
    if (!d->failed) d->p++;
    return e;
  }
  const char *start = d->p;
  while (word_char(*d->p)) d->p++;
  size_t n = (size_t)(d->p - start);
  uint32_t k;
  char *w = zn_arena_strndup(d->I->pa, start, n), *end;
  if (n == 0 || n > 200) {
    d->failed = true;
  } else if (*w >= '0' && *w <= '9') {
    int64_t v = strtoll(w, &end, 10);
    if (*end || n > 15) d->failed = true;
    return zn_ex_const(d->I->ex, v);
  } else if (zn_nmap_get(&d->I->pure_dims, w, &k)) {
    return zn_imp_symbol(d->I, w);
  } else {
    d->failed = true;
  }
  return zn_ex_const(d->I->ex, 0);
}

static zn_expr dim_product(dim_parser *d) {
  zn_expr e = dim_atom(d);
  while (!d->failed) {
    spaces(d);
    if (!strncmp(d->p, "//", 2)) {
      d->p += 2;
      zn_expr r = dim_atom(d);
      if (zn_ex_is(d->I->ex, r, 0)) d->failed = true;
      else e = zn_ex_div(d->I->ex, e, r);
    } else if (*d->p == '*' && d->p[1] != '*') {
      d->p++;
      e = zn_ex_mul(d->I->ex, e, dim_atom(d));
    } else {
      break;
    }
  }
  return e;
}

static zn_expr dim_sum(dim_parser *d) {
  zn_expr e = dim_product(d);
  while (!d->failed) {
    spaces(d);
    if (*d->p == '+') {
      d->p++;
      e = zn_ex_add(d->I->ex, e, dim_product(d));
    } else if (d->p[0] == '-' && d->p[1] == ' ') { /* "batch-size" is a name */
      d->p++;
      e = zn_ex_sub(d->I->ex, e, dim_product(d));
    } else {
      break;
    }
  }
  return e;
}

static zn_expr named_dim(zn_imp *I, const char *name) {
  uint32_t k;
  if (strpbrk(name, "+-*/") && strlen(name) < 256 && !zn_nmap_get(&I->dim_opts, name, &k)) {
    dim_parser d = {I, name, 0, false};
    zn_expr e = dim_sum(&d);
    spaces(&d);
    if (!d.failed && !*d.p && e > ZN_EX_OVERFLOW) return e;
  }
  return zn_imp_symbol(I, name);
}

/* ---- types ---- */

static bool tensor_type(zn_imp *I, const Pb__TensorTypeProto *p, const char *value, zn_type *out) {
  out->dtype = (uint8_t)zn_dtype_from_onnx(p->elem_type);
  if (p->elem_type != 0 && out->dtype == ZN_NONE) {
    zn_imp_problem(I, zn_arena_printf(I->pa, "value '%s'", value), true, NULL, "unknown element type %d", p->elem_type);
    return false;
  }
  if (!p->shape) return true;
  if (p->shape->n_dim > ZN_MAX_RANK) {
    zn_imp_problem(I, zn_arena_printf(I->pa, "value '%s'", value), true, NULL,
                   "rank %zu; tensors have at most %d dimensions", p->shape->n_dim, ZN_MAX_RANK);
    return false;
  }
  out->rank = (int8_t)p->shape->n_dim;
  for (size_t k = 0; k < p->shape->n_dim; k++) {
    const Pb__DimensionProto *d = p->shape->dim[k];
    if (d->has_dim_value && d->dim_value >= 0)
      out->dims[k] = zn_ex_const(I->ex, d->dim_value);
    else if (d->dim_param && *d->dim_param)
      out->dims[k] = named_dim(I, d->dim_param);
    else
      out->dims[k] = zn_imp_symbol(I, zn_arena_printf(I->pa, "%s.d%zu", value, k));
  }
  return true;
}

static bool element_type(zn_imp *I, const Pb__TypeProto *p, const char *value, zn_type *out) {
  zn_type e;
  if (!p) return true;
  if (!zn_imp_type(I, p, value, &e)) return false;
  out->of = e.kind != ZN_V_TENSOR;
  out->dtype = e.dtype;
  out->key = e.key;
  if (e.kind == ZN_V_TENSOR) { /* sizes may differ from item to item: only numbers are shared */
    out->rank = e.rank;
    for (int d = 0; d < e.rank; d++) out->dims[d] = zn_ex_is_const(I->ex, e.dims[d], NULL) ? e.dims[d] : ZN_EX_NONE;
  }
  bool fine = e.kind == ZN_V_TENSOR || (out->kind == ZN_V_SEQ && e.kind == ZN_V_MAP) ||
              (out->kind == ZN_V_OPT && e.kind == ZN_V_SEQ && !e.of);
  if (!fine)
    zn_imp_problem(I, zn_arena_printf(I->pa, "value '%s'", value), true, NULL,
                   "a type nested deeper than a sequence of maps or an optional sequence");
  return fine;
}

bool zn_imp_type(zn_imp *I, const Pb__TypeProto *p, const char *value, zn_type *out) {
  memset(out, 0, sizeof *out);
  out->rank = -1;
  if (!p) return true;
  if (p->tensor_type) return tensor_type(I, p->tensor_type, value, out);
  if (p->sequence_type) {
    out->kind = ZN_V_SEQ;
    return element_type(I, p->sequence_type->elem_type, value, out);
  }
  if (p->optional_type) {
    out->kind = ZN_V_OPT;
    return element_type(I, p->optional_type->elem_type, value, out);
  }
  if (p->map_type) {
    out->kind = ZN_V_MAP;
    bool ok = element_type(I, p->map_type->value_type, value, out);
    out->key = (uint8_t)zn_dtype_from_onnx(p->map_type->key_type);
    out->of = 0;
    return ok;
  }
  if (p->sparse_tensor_type || p->opaque_type) {
    zn_imp_problem(I, zn_arena_printf(I->pa, "value '%s'", value), true, NULL, "a value of %s type",
                   p->opaque_type ? "opaque" : "sparse tensor");
    return false;
  }
  return true;
}
