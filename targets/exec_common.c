/* Drives a model's two entries: plan gives sizes, buffers come from the arena, run computes; result
 * codes turn into diagnostics here and nowhere else. */
#include "targets/exec_common.h"

#include <assert.h>
#include <inttypes.h>

#include "runtime/zenith_image.h"

static void *alloc64(zn_arena *a, uint64_t bytes) {
  char *p = zn_arena_array(a, 1, (size_t)bytes + 64);
  return p + (-(uintptr_t)p & 63);
}

static const char *explain(int32_t rc) {
  switch (rc) {
    case ZN_RUN_NULL: return "a buffer is missing (null pointer)";
    case ZN_RUN_RANK: return "an input's rank is not the model's";
    case ZN_RUN_SHAPE:
      return "an input's shape does not fit the model, or two inputs disagree about a dimension";
    case ZN_RUN_DTYPE: return "an input's or output's element type is not the model's";
    case ZN_RUN_SHORT: return "a buffer is smaller than its shape needs";
    case ZN_RUN_WORKSPACE: return "the workspace is too small or not 64-byte aligned";
    case ZN_RUN_CPU: return "this CPU lacks an instruction set the artifact was compiled for";
    case ZN_RUN_INDEX: return "the data holds an index outside its tensor";
    case ZN_RUN_DOMAIN: return "an operator is undefined on this input";
    case ZN_RUN_ALLOC: return "the model needs an allocator, or it refused";
    case ZN_RUN_OVERFLOW: return "a size does not fit this machine's pointers";
    case ZN_RUN_HOOK: return "the model decodes images, and the host has no decoder";
    case ZN_RUN_IMAGE: return "an image could not be decoded";
    case ZN_RUN_OVERLAP: return "an output has the address of an input that it may not lie over";
    default: return NULL;
  }
}

static const char *remedy(int32_t rc) {
  switch (rc) {
    case ZN_RUN_RANK:
    case ZN_RUN_SHAPE:
    case ZN_RUN_DTYPE: return "`zenithc inspect MODEL` lists the inputs the model expects";
    case ZN_RUN_CPU: return "compile with --arch=native on this machine, or with an older --arch";
    case ZN_RUN_INDEX:
    case ZN_RUN_DOMAIN:
      return "check the input data; --random draws values that models with index inputs may reject";
    case ZN_RUN_IMAGE:
      return zn_image_problem() ? zn_image_problem()
                                : "give an undamaged JPEG, JPEG 2000, PNG, BMP, TIFF, WebP or PNM file";
    default: return NULL;
  }
}

static zn_status diagnose(zn_ctx *c, const char *model, const char *phase, int32_t rc,
                          uint32_t num_in, const zn_htensor *in) {
  if (rc < 0) return ZN_ERR_MODEL; /* reported by the caller's function */
  char where[300];
  snprintf(where, sizeof where, "model '%s'", model);
  const char *why = explain(rc);
  zn_status st = why ? zn_error(c, where, "%s failed: %s (code %" PRId32 ")", phase, why, rc)
                     : zn_error(c, where, "%s returned the unknown code %" PRId32, phase, rc);
  for (uint32_t i = 0; i < num_in && rc >= ZN_RUN_RANK && rc <= ZN_RUN_SHORT; i++) {
    char dims[256] = "";
    size_t n = 0;
    for (uint32_t d = 0; d < in[i].rank && n + 24 < sizeof dims; d++)
      n += (size_t)snprintf(dims + n, sizeof dims - n, "%s%" PRId64, d ? "x" : "", in[i].dims[d]);
    zn_note(c, "given input %" PRIu32 " '%s': %s[%s]", i + 1, in[i].name ? in[i].name : "",
            zn_dtypes[in[i].dtype].name, dims);
  }
  if (remedy(rc)) zn_help(c, "%s", remedy(rc));
  return st;
}

static void *arena_alloc(void *user, size_t bytes) { return alloc64(user, bytes); }

zn_host zn_exec_host(zn_arena *a, const zn_host *base) {
  zn_host h = base ? *base : (zn_host){0};
  h.alloc_user = a;
  h.alloc = arena_alloc;
  h.decode_image = zn_image_decode;
  return h;
}

static uint32_t list_code(const zn_htensor *t) {
  const zn_htensor *items = t->data;
  uint32_t code = (uint32_t)zn_dtypes[t->dtype].onnx;
  switch (t->kind) {
    case ZN_V_TENSOR: return code;
    case ZN_V_MAP: return ZN_MAP | list_code(&items[1]) | list_code(&items[0]) << 16;
    case ZN_V_OPT: return (t->of ? ZN_OPTIONAL_SEQUENCE : ZN_OPTIONAL) | code;
    default: break;
  }
  if (!t->of) return ZN_SEQUENCE | code;
  return ZN_SEQUENCE_OF_MAPS | (t->dims[0] ? list_code(&items[0]) & ~0xff00u : code);
}

void zn_exec_to_abi(zn_arena *a, const zn_htensor *t, zn_tensor *out) {
  memset(out, 0, sizeof *out);
  out->rank = t->rank;
  memcpy(out->shape, t->dims, sizeof out->shape);
  out->dtype = list_code(t);
  if (t->kind == ZN_V_TENSOR) {
    out->bytes = zn_htensor_bytes(t);
    out->u.data = t->data ? t->data : alloc64(a, 1); /* empty tensors may have no buffer */
    if ((uintptr_t)t->data % 16) out->u.data = memcpy(alloc64(a, out->bytes + 1), t->data, out->bytes); /* inside a file */
    return;
  }
  const zn_htensor *items = t->data;
  zn_tensor *list = ZN_ARRAY(a, zn_tensor, t->dims[0] + 1);
  for (int64_t i = 0; i < t->dims[0]; i++) zn_exec_to_abi(a, &items[i], &list[i]);
  out->u.data = list;
  out->bytes = (uint64_t)t->dims[0] * sizeof *list;
}

static zn_vkind kind_of(uint32_t code) {
  switch (ZN_KIND(code)) {
    case 0: return ZN_V_TENSOR;
    case ZN_MAP: return ZN_V_MAP;
    case ZN_OPTIONAL:
    case ZN_OPTIONAL_SEQUENCE: return ZN_V_OPT;
    default: return ZN_V_SEQ;
  }
}

static zn_status from_abi(zn_ctx *c, zn_arena *a, const char *model, uint32_t i, const zn_tensor *t, unsigned depth,
                          zn_htensor *out) {
  zn_dtype dt = zn_dtype_from_onnx((int)(t->dtype & 0xff));
  zn_vkind kind = kind_of(t->dtype);
  uint64_t count = 0, size = kind == ZN_V_TENSOR ? zn_dtype_bytes(dt) : sizeof *t;
  if ((dt == ZN_NONE && kind == ZN_V_TENSOR) || t->rank > ZN_MAX_RANK || depth > 3 ||
      (kind != ZN_V_TENSOR && t->rank != 1) || !zn_dims_count(t->rank, t->shape, (unsigned)size, &count) ||
      count * size > t->bytes)
    return zn_error(c, model, "output %" PRIu32 " came back with an impossible type or shape",
                    i + 1);
  out->dtype = dt;
  out->kind = (uint8_t)kind;
  out->of = ZN_KIND(t->dtype) == ZN_OPTIONAL_SEQUENCE || ZN_KIND(t->dtype) == ZN_SEQUENCE_OF_MAPS;
  out->rank = t->rank;
  memcpy(out->dims, t->shape, sizeof t->shape);
  out->data = t->u.data;
  if (kind == ZN_V_TENSOR) return ZN_OK;
  const zn_tensor *list = t->u.data;
  zn_htensor *items = ZN_ARRAY(a, zn_htensor, count + 1);
  for (uint64_t k = 0; k < count; k++) ZN_TRY(from_abi(c, a, model, i, &list[k], depth + 1, &items[k]));
  out->data = items;
  return ZN_OK;
}

zn_status zn_exec_run_entries(zn_ctx *c, zn_arena *a, const char *model_name, uint32_t num_in,
                              uint32_t num_out, zn_exec_call call, void *user, const zn_host *base,
                              const zn_htensor *in, zn_htensor *out) {
  static_assert(sizeof(zn_tensor) == 88 && ZN_MAX_RANK == ZN_ABI_MAX_RANK,
                "the ABI's tensor layout");
  static_assert(sizeof(zn_string) == sizeof(zn_str), "the ABI's string layout");
  zn_tensor *ti = ZN_ARRAY(a, zn_tensor, num_in), *to = ZN_ARRAY(a, zn_tensor, num_out);
  const zn_host host = zn_exec_host(a, base);
  for (uint32_t i = 0; i < num_in; i++) zn_exec_to_abi(a, &in[i], &ti[i]);
  uint64_t ws_bytes = 0;
  int32_t rc = call(user, true, ti, to, &ws_bytes, 0, &host);
  if (rc) return diagnose(c, model_name, "planning", rc, num_in, in);
  for (uint32_t i = 0; i < num_out; i++) {
    if (out[i].data) {
      uint64_t own = zn_htensor_bytes(&out[i]);
      to[i].u.data = out[i].data;
      to[i].bytes = own;
    } else {
      to[i].u.data = alloc64(a, to[i].bytes);
    }
  }
  rc = call(user, false, ti, to, alloc64(a, ws_bytes), ws_bytes, &host);
  if (rc) return diagnose(c, model_name, "the run", rc, num_in, in);
  for (uint32_t i = 0; i < num_out; i++) ZN_TRY(from_abi(c, a, model_name, i, &to[i], 0, &out[i]));
  return ZN_OK;
}
