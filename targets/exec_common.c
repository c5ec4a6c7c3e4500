/* Drives a model's two entries: plan gives sizes, buffers come from the arena, run computes; result
 * codes turn into diagnostics here and nowhere else. */
#include "targets/exec_common.h"

#include <assert.h>
#include <inttypes.h>

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

static void to_abi(const zn_htensor *t, zn_tensor *out) {
  out->u.data_bits = 0;
  out->u.data = t->data;
  out->bytes = zn_htensor_bytes(t);
  out->dtype = zn_dtypes[t->dtype].onnx;
  out->rank = t->rank;
  memcpy(out->shape, t->dims, sizeof out->shape);
}

static zn_status from_abi(zn_ctx *c, const char *model, uint32_t i, const zn_tensor *t,
                          zn_htensor *out) {
  zn_dtype dt = zn_dtype_from_onnx((int)t->dtype);
  uint64_t count;
  if (dt == ZN_NONE || t->rank > ZN_MAX_RANK ||
      !zn_dims_count(t->rank, t->shape, zn_dtype_bytes(dt), &count) ||
      count * zn_dtype_bytes(dt) > t->bytes)
    return zn_error(c, model, "output %" PRIu32 " came back with an impossible type or shape",
                    i + 1);
  out->dtype = dt;
  out->rank = t->rank;
  memcpy(out->dims, t->shape, sizeof t->shape);
  out->data = t->u.data;
  return ZN_OK;
}

zn_status zn_exec_run_entries(zn_ctx *c, zn_arena *a, const char *model_name, uint32_t num_in,
                              uint32_t num_out, zn_exec_call call, void *user, const zn_htensor *in,
                              zn_htensor *out) {
  static_assert(sizeof(zn_tensor) == 88 && ZN_MAX_RANK == ZN_ABI_MAX_RANK,
                "the ABI's tensor layout");
  zn_tensor *ti = ZN_ARRAY(a, zn_tensor, num_in), *to = ZN_ARRAY(a, zn_tensor, num_out);
  for (uint32_t i = 0; i < num_in; i++) {
    to_abi(&in[i], &ti[i]);
    if (!ti[i].u.data) ti[i].u.data = alloc64(a, 1); /* empty tensors may have no buffer */
  }
  uint64_t ws_bytes = 0;
  int32_t rc = call(user, true, ti, to, &ws_bytes, 0);
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
  rc = call(user, false, ti, to, alloc64(a, ws_bytes), ws_bytes);
  if (rc) return diagnose(c, model_name, "the run", rc, num_in, in);
  for (uint32_t i = 0; i < num_out; i++) ZN_TRY(from_abi(c, model_name, i, &to[i], &out[i]));
  return ZN_OK;
}
