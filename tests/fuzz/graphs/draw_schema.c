/* A node from its schema alone: element types from the type sets, shapes that broadcast or repeat, contents and attributes by
 * what their names say. Most operators need no more; those that do have a row in draw_rows.def. */
#include "tests/fuzz/graphs/fuzz.h"

/* Words that string attributes may hold; NONE: of every operator. */
static const struct words {
  zn_op op;
  const char *attr, *words; /* separated by blanks */
} words[] = {
    {ZN_OP_NONE, "auto_pad", "NOTSET SAME_UPPER SAME_LOWER VALID"},
    {ZN_OP_NONE, "direction", "forward reverse bidirectional"},
    {ZN_OP_BitShift, "direction", "LEFT RIGHT"},
    {ZN_OP_ScatterElements, "reduction", "none add mul max min"},
    {ZN_OP_ScatterND, "reduction", "none add mul max min"},
    {ZN_OP_NONE, "reduction", "none mean sum"},
    {ZN_OP_Pad, "mode", "constant reflect edge wrap"},
    {ZN_OP_Resize, "mode", "nearest linear cubic"},
    {ZN_OP_GridSample, "mode", "linear nearest cubic"},
    {ZN_OP_DepthToSpace, "mode", "DCR CRD"},
    {ZN_OP_SpaceToDepth, "mode", "DCR CRD"},
    {ZN_OP_RoiAlign, "mode", "avg max"},
    {ZN_OP_TensorScatter, "mode", "linear circular"},
    {ZN_OP_NONE, "padding_mode", "zeros border reflection"},
    {ZN_OP_NONE, "nearest_mode", "round_prefer_floor round_prefer_ceil floor ceil"},
    {ZN_OP_RoiAlign, "coordinate_transformation_mode", "half_pixel output_half_pixel"},
    {ZN_OP_NONE, "coordinate_transformation_mode",
     "half_pixel asymmetric pytorch_half_pixel align_corners half_pixel_symmetric"},
    {ZN_OP_NONE, "approximate", "none tanh"},
    {ZN_OP_NONE, "norm", "MAX L1 L2"},
    {ZN_OP_NONE, "activation", "none silu"},
};

static const char *some_word(fz *f, zn_op op, const char *attr) {
  for (size_t k = 0; k < sizeof words / sizeof words[0]; k++) {
    if ((words[k].op != ZN_OP_NONE && words[k].op != op) || strcmp(words[k].attr, attr)) continue;
    uint32_t n = 1;
    for (const char *p = words[k].words; *p; p++) n += *p == ' ';
    const char *p = words[k].words;
    for (uint32_t skip = fz_below(f, n); skip; p++) skip -= *p == ' ';
    return zn_arena_strndup(f->a, p, strcspn(p, " "));
  }
  return NULL;
}

static bool is(const char *a, const char *b) { return !strcmp(a, b); }

static void permutation(fz *f, int rank, int64_t *out) {
  for (int i = 0; i < rank; i++) out[i] = i;
  for (int i = rank; i-- > 1;) {
    int j = (int)fz_below(f, (uint32_t)i + 1);
    int64_t t = out[i];
    out[i] = out[j], out[j] = t;
  }
}

static uint32_t some_axes(fz *f, int rank, int64_t *out) {
  uint32_t n = 0;
  for (int d = 0; d < rank; d++)
    if (fz_chance(f, 45)) out[n++] = fz_chance(f, 30) ? d - rank : d;
  if (!n && rank && fz_chance(f, 80)) out[n++] = fz_range(f, -rank, rank - 1);
  return n;
}

/* Attributes of the schema by their names; false when a required one has no rule. */
static bool draw_attrs(fz *f, zn_op op, const zn_schema *s, int rank, zn_dtype elem, fz_attrs *at) {
  static const zn_dtype targets[] = {ZN_F32, ZN_F64, ZN_F16,  ZN_BF16, ZN_I32, ZN_I64,
                                     ZN_U8,  ZN_I8,  ZN_BOOL, ZN_U16,  ZN_U32, ZN_I4};
  (void)elem;
  for (uint32_t k = 0; k < s->num_attrs && at->n < 14; k++) {
    const zn_schema_attr *a = &s->attrs[k];
    int64_t v[ZN_MAX_RANK];
    if (!a->required && fz_chance(f, 40)) continue;
    if (a->kind == ZN_A_STRING) {
      const char *w = some_word(f, op, a->name);
      if (w) fz_set_s(f, at, a->name, w);
      else if (a->required) return false;
    } else if (a->kind == ZN_A_INT) {
      if (is(a->name, "axis") || is(a->name, "batch_axis") || is(a->name, "time_axis"))
        fz_set_i(at, a->name, rank ? fz_range(f, -rank, rank - 1) : 0);
      else if (is(a->name, "to")) fz_set_i(at, a->name, zn_dtypes[targets[fz_below(f, 12)]].onnx);
      else if (is(a->name, "dtype")) fz_set_i(at, a->name, zn_dtypes[targets[fz_below(f, 6)]].onnx);
      else if (is(a->name, "blocksize")) fz_set_i(at, a->name, fz_range(f, 1, 3));
      else if (is(a->name, "k")) fz_set_i(at, a->name, fz_range(f, -3, 3));
      else if (is(a->name, "p")) fz_set_i(at, a->name, fz_range(f, 1, 2));
      else if (is(a->name, "size")) fz_set_i(at, a->name, 1 + 2 * fz_below(f, 3));
      else if (is(a->name, "start") || is(a->name, "end"))
        fz_set_i(at, a->name, fz_range(f, -rank - 1, rank + 1));
      else if (a->has_default && (a->def.u.i == 0 || a->def.u.i == 1) &&
               !is(a->name, "stash_type") && !is(a->name, "output_datatype") &&
               !is(a->name, "block_size") && !is(a->name, "output_dtype") &&
               !is(a->name, "precision") && !is(a->name, "group"))
        fz_set_i(at, a->name, fz_below(f, 2));
      else if (a->required) return false;
    } else if (a->kind == ZN_A_FLOAT) {
      if (is(a->name, "epsilon")) fz_set_f(at, a->name, 1e-3);
      else if (a->has_default && fz_chance(f, 50))
        fz_set_f(at, a->name, (double)fz_range(f, -8, 12) / 8);
      else if (a->required) return false;
    } else if (a->kind == ZN_A_INTS) {
      if (is(a->name, "perm"))
        permutation(f, rank, v), fz_set_is(f, at, a->name, v, (uint32_t)rank);
      else if (is(a->name, "axes")) fz_set_is(f, at, a->name, v, some_axes(f, rank, v));
      else if (a->required) return false;
    } else if (a->required) {
      return false;
    }
  }
  return true;
}

/* Integer operands whose names tell what they mean; 0: no rule. */
static zn_vid named_operand(fz *f, const zn_schema_io *io, zn_dtype t, int rank) {
  int64_t v[ZN_MAX_RANK];
  if (is(io->name, "axes")) return fz_i64s(f, t, v, some_axes(f, rank, v));
  if (is(io->name, "axis")) return fz_scalar(f, t, rank ? (double)fz_range(f, -rank, rank - 1) : 0);
  if (is(io->name, "k")) return fz_scalar(f, t, (double)fz_range(f, -3, 3));
  if (is(io->name, "size")) return fz_scalar(f, t, (double)fz_range(f, 1, 12));
  return 0;
}

static zn_vid operand(fz *f, zn_op op, const zn_schema_io *io, zn_dtype t, zn_vid first) {
  const zn_type base = first ? *fz_type(f, first) : (zn_type){.rank = -1};
  zn_expr dims[ZN_MAX_RANK];
  if (!first) return fz_some(f, t, -1);
  zn_vid v = zn_is_int(t) ? named_operand(f, io, t, base.rank) : 0;
  if (v) return v;
  uint32_t r = fz_below(f, 100);
  if (zn_ops[op].flags & ZN_OPF_EW) {
    if (r < 40) return fz_exact(f, t, base.rank, base.dims);
    if (r < 50 && (v = fz_pick(f, t, -1))) return v;
    int n = fz_broadcast_shape(f, &base, dims);
    return fz_exact(f, t, n, dims);
  }
  if (io->optional && r < 50) return fz_leaf(f, t, 0, NULL);
  if (r < 70) return fz_exact(f, t, base.rank, base.dims);
  if (base.rank > 0 && r < 85)
    return fz_exact(f, t, 1, &base.dims[fz_below(f, (uint32_t)base.rank)]);
  return fz_some(f, t, -1);
}

/* Operators of ai.onnx.ml whose parameters are lists that belong together: rows of draw_rows.def, or nothing. */
static bool needs_lists(zn_op op, const zn_schema *s) {
  bool lists = false;
  for (uint32_t k = 0; k < s->num_attrs; k++)
    lists |= s->attrs[k].kind == ZN_A_INTS || s->attrs[k].kind == ZN_A_FLOATS || s->attrs[k].kind == ZN_A_STRINGS;
  return lists && is(zn_ops[op].domain, "ai.onnx.ml");
}

bool fz_draw_schema(fz *f, zn_op op) {
  const zn_schema *s = zn_op_schema(op);
  if (needs_lists(op, s)) return false;
  struct {
    const char *name;
    zn_dtype t;
  } var[8];
  uint32_t vars = 0, n = 0, outs = 0;
  zn_vid in[8] = {0};
  for (uint32_t i = 0; i < s->num_in && n < 6; i++) {
    const zn_schema_io *io = &s->in[i];
    zn_dtype t = ZN_NONE;
    if (io->optional && fz_chance(f, 50)) {
      in[n++] = 0;
      continue;
    }
    for (uint32_t k = 0; k < vars; k++)
      if (is(var[k].name, io->type)) t = var[k].t;
    if (t == ZN_NONE) {
      t = fz_dtype_of(f, s, io->type);
      if (t == ZN_NONE) return false;
      if (vars < 8) var[vars].name = io->type, var[vars++].t = t;
    }
    uint32_t copies = io->variadic ? 1 + fz_below(f, 3) : 1;
    for (uint32_t k = 0; k < copies; k++) {
      in[n] = operand(f, op, io, t, n ? in[0] : 0);
      if (!in[n++]) return false;
    }
  }
  while (n && !in[n - 1]) n--;
  for (uint32_t i = 0; i < s->num_out; i++)
    outs += !s->out[i].optional || (i == outs && fz_chance(f, 50));
  fz_attrs at = {.n = 0};
  int rank = n && in[0] ? fz_type(f, in[0])->rank : 0;
  if (!draw_attrs(f, op, s, rank, n && in[0] ? (zn_dtype)fz_type(f, in[0])->dtype : ZN_NONE, &at))
    return false;
  return fz_node(f, op, in, n, outs, &at) != 0;
}
