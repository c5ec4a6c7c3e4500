/* Opening a model: the file is mapped, its structure unpacked into an arena that lives as long as the import. */
#include "frontends/onnx/import.h"
#include "frontends/onnx/wire.h"
#include "zenithc/ops/grad.h"

static zn_status load(zn_ctx *c, const uint8_t *data, size_t n, bool mapped, const char *dir, const zn_onnx_opts *opts,
                      zn_onnx_maps *maps, zn_graph **out) {
  zn_arena pa;
  zn_arena_init(&pa, "import");
  pa.oom = c->graph.oom;
  pa.oom_user = c->graph.oom_user;
  zn_status st = ZN_ERR_MODEL;
  *out = NULL;
  Pb__ModelProto *m = (Pb__ModelProto *)zn_wire_read(c, &pa, data, n, &pb__model_proto__descriptor, "model");
  if (m) {
    zn_payload p = {.c = c, .a = &c->graph, .base = data, .size = n, .mapped = mapped, .dir = dir, .maps = maps};
    p.sparse_left = ((uint64_t)64 << 20) + (uint64_t)n * 16;
    st = zn_imp_run(c, m, &pa, &p, opts, out);
    if (st == ZN_OK) st = zn_grad_resolve(c, *out);
  }
  zn_arena_reset(&pa);
  return st;
}

zn_status zn_onnx_load_bytes(zn_ctx *c, const uint8_t *data, size_t n, const char *dir, const zn_onnx_opts *opts,
                             zn_onnx_maps *maps, zn_graph **out) {
  zn_onnx_maps own = {NULL, 0, 0};
  return load(c, data, n, false, dir, opts, maps ? maps : &own, out);
}

zn_status zn_onnx_load(zn_ctx *c, const char *path, const zn_onnx_opts *opts, zn_onnx_maps *maps, zn_graph **out) {
  zn_onnx_maps own = {NULL, 0, 0};
  if (!maps) maps = &own;
  const uint8_t *data;
  size_t n;
  *out = NULL;
  c->file = zn_arena_strdup(&c->perm, path);
  ZN_TRY(zn_payload_map(c, maps, path, &data, &n));
  const char *slash = strrchr(path, '/');
  const char *dir = !slash ? "." : slash == path ? "/" : zn_arena_strndup(&c->perm, path, (size_t)(slash - path));
  return load(c, data, n, true, dir, opts, maps, out);
}
