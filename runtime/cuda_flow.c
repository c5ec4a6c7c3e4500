/* If and Loop inside a recorded run: conditional parts of the CUDA graph, whose condition a small kernel sets from what lies in
 * device memory. The kernel is PTX that the driver compiles; the function it calls is one that drivers bring themselves (as
 * vprintf), so nothing but the driver is needed. Part of the runtime object of CUDA artifacts. */
#include <string.h>

#include "cuda_session.h"

enum { NODE_CONDITIONAL = 13, COND_IF = 0, COND_WHILE = 1, SET_DEPENDENCIES = 1, RELAXED = 2 };
enum { FEW = 512, PASSES = 64 }; /* turns of a counted loop that are recorded one by one; between decisions of longer ones */
enum { KIND = 3, IF = 0, ELSE = 1, WHILE = 2, END = 3, COND = 4, COUNT = 8 }; /* zn_flow_kind, zn_flow_flags of kir.h */

typedef struct node_params { /* CUgraphNodeParams of a conditional node */
  int type, reserved[3];
  uint64_t handle;
  int kind;
  unsigned size;
  void **graphs;
  void *ctx;
  uint64_t rest[26];
} node_params;

/* what: 1 the bool at cond counts, 2 the i64 at count must be below most, 4 handle `no` gets the opposite. */
static const char decide_ptx[] =
    ".version 7.0\n.target sm_75\n.address_size 64\n"
    ".extern .func cudaGraphSetConditional(.param .b64 a, .param .b32 b);\n"
    ".visible .entry zn_decide(.param .u64 yes, .param .u64 no, .param .u64 cond, .param .u64 count, .param .u64 most,\n"
    " .param .u32 what) {\n"
    ".reg .pred %p<2>;\n.reg .b32 %r<5>;\n.reg .b64 %d<5>;\n"
    "ld.param.u32 %r0, [what];\nmov.u32 %r1, 1;\nand.b32 %r2, %r0, 1;\nsetp.eq.u32 %p0, %r2, 0;\n@%p0 bra COUNT;\n"
    "ld.param.u64 %d0, [cond];\ncvta.to.global.u64 %d0, %d0;\nld.global.u8 %r3, [%d0];\n"
    "setp.ne.u32 %p1, %r3, 0;\nselp.u32 %r1, 1, 0, %p1;\n"
    "COUNT:\nand.b32 %r2, %r0, 2;\nsetp.eq.u32 %p0, %r2, 0;\n@%p0 bra YES;\n"
    "ld.param.u64 %d1, [count];\nld.param.u64 %d2, [most];\ncvta.to.global.u64 %d1, %d1;\nld.global.s64 %d3, [%d1];\n"
    "setp.lt.s64 %p1, %d3, %d2;\nselp.u32 %r3, %r1, 0, %p1;\nmov.u32 %r1, %r3;\n"
    "YES:\nld.param.u64 %d4, [yes];\n{\n.param .b64 h;\n.param .b32 v;\nst.param.b64 [h], %d4;\nst.param.b32 [v], %r1;\n"
    "call.uni cudaGraphSetConditional, (h, v);\n}\n"
    "and.b32 %r2, %r0, 4;\nsetp.eq.u32 %p0, %r2, 0;\n@%p0 bra DONE;\nxor.b32 %r4, %r1, 1;\nld.param.u64 %d4, [no];\n"
    "{\n.param .b64 h;\n.param .b32 v;\nst.param.b64 [h], %d4;\nst.param.b32 [v], %r4;\n"
    "call.uni cudaGraphSetConditional, (h, v);\n}\nDONE:\nret;\n}\n";

static void decide(zn_session *s, const zn_level *v) {
  const unsigned what = (v->cond ? 1u : 0u) | (v->count ? 2u : 0u) | (v->has_no ? 4u : 0u);
  uint64_t value[5] = {v->yes, v->no, v->cond, v->count, (uint64_t)v->most};
  void *param[6] = {&value[0], &value[1], &value[2], &value[3], &value[4], (void *)(uintptr_t)&what};
  launch_config c = {.grid = {1, 1, 1}, .block = {1, 1, 1}, .stream = s->stream};
  zn_cuda_keep(s, s->cu.launch(&c, s->decide, param, NULL), "deciding on the device");
}

/* What the stream being recorded stands at. */
typedef struct spot {
  void *graph;
  void *const *nodes;
  size_t num;
} spot;

static spot here(zn_session *s) {
  spot at = {NULL, NULL, 0};
  int status = 0;
  uint64_t id = 0;
  const void *edges = NULL;
  zn_cuda_keep(s, s->cu.capture_info(s->stream, &status, &id, &at.graph, &at.nodes, &edges, &at.num), "recording");
  return at;
}

/* What follows is recorded as this body. */
static void enter(zn_session *s, zn_level *v, void *body) {
  if (!s->status && !v->stream) zn_cuda_keep(s, s->cu.stream_create(&v->stream, 1), "creating a stream");
  if (!s->status) zn_cuda_keep(s, s->cu.capture_to_graph(v->stream, body, NULL, NULL, 0, RELAXED), "recording");
  if (s->status) return;
  v->outer = s->stream;
  v->inside = 1;
  s->stream = v->stream;
}

/* A conditional node at this place of the recording. */
static void branch(zn_session *s, zn_level *v, uint64_t handle, int kind) {
  spot at = here(s);
  void *node = NULL;
  const unsigned bodies = kind == COND_IF && s->flows == ZN_FLOWS_ELSE ? 2 : 1;
  node_params p = {.type = NODE_CONDITIONAL, .handle = handle, .kind = kind, .size = bodies, .ctx = s->ctx};
  if (s->status) return;
  zn_cuda_keep(s, s->cu.graph_add_node(&node, at.graph, at.nodes, NULL, at.num, &p), "a condition");
  if (!s->status) zn_cuda_keep(s, s->cu.capture_update(s->stream, &node, NULL, 1, SET_DEPENDENCIES), "a condition");
  if (s->status) return;
  v->other = bodies == 2 ? p.graphs[1] : NULL;
  enter(s, v, p.graphs[0]);
}

static void leave(zn_session *s, zn_level *v) {
  void *graph = NULL;
  if (!v->inside) return;
  zn_cuda_keep(s, s->cu.capture_end(s->stream, &graph), "recording");
  v->inside = 0;
  s->stream = v->outer;
}

static void begin(zn_session *s, const zn_flow *f) {
  zn_level *v = &s->levels[s->depth++];
  void *stream = v->stream;
  *v = (zn_level){.stream = stream, .cond = f->kind & COND ? f->cond : 0, .count = f->kind & COUNT ? f->count : 0,
                  .most = f->most, .is_if = (f->kind & KIND) == IF};
  v->has_no = v->is_if && s->flows != ZN_FLOWS_ELSE;
  spot at = here(s);
  if (s->status) return;
  zn_cuda_keep(s, s->cu.conditional_handle(&v->yes, at.graph, s->ctx, 0, 0), "a condition");
  if (v->has_no && !s->status) zn_cuda_keep(s, s->cu.conditional_handle(&v->no, at.graph, s->ctx, 0, 0), "a condition");
  if (!s->status) decide(s, v);
  if (!s->status) branch(s, v, v->yes, v->is_if ? COND_IF : COND_WHILE);
}

void zn_flow_record(zn_session *s, const zn_flow *f) {
  s->after_kernel = 0;
  if ((f->kind & KIND) == IF || (f->kind & KIND) == WHILE) {
    begin(s, f);
    return;
  }
  zn_level *v = &s->levels[s->depth - 1];
  if (!v->is_if && !s->status) decide(s, v); /* go on? */
  leave(s, v);
  if ((f->kind & KIND) == END) s->depth--;
  else if (v->other) enter(s, v, v->other);
  else if (!s->status) branch(s, v, v->no, COND_IF);
}

void zn_flow_unwind(zn_session *s) {
  for (; s->depth; s->depth--) leave(s, &s->levels[s->depth - 1]);
}

/* May the region that begins here be recorded? */
static int records(const zn_session *s, uint32_t kind, intptr_t most) {
  if (s->status || !s->flows || s->events || !(s->capturing || s->tape)) return 0;
  if (s->open_flows == MAX_LEVELS) return 0;
  return (kind & KIND) != WHILE || kind & COND || most > FEW;
}

static void put(zn_session *s, zn_flow f, uint32_t kind) {
  f.kind = (f.kind & ~(uint64_t)KIND) | kind;
  if (s->status) return;
  if (s->capturing) zn_flow_record(s, &f);
  else zn_tape_flow(s, &f);
}

/* A counted loop's turns: those over whole groups first, then a node with a group. Once more? */
static int turn(zn_session *s, const zn_flow *f, zn_turns *t) {
  if (s->status) return 0;
  if (t->before && --t->before) return 1;
  if (!t->passes) put(s, *f, WHILE), t->passes = PASSES + 1;
  return --t->passes > 0;
}

static uint32_t begin_region(zn_session *s, const zn_flow *f, uint32_t kind) {
  if (!records(s, kind, f->most)) return 0;
  zn_turns *t = &s->turns[s->open_flows++];
  t->before = 0;
  t->passes = PASSES;
  if ((kind & (KIND | COND)) == WHILE && f->most % PASSES) t->before = (int)(f->most % PASSES), t->passes = 0;
  else put(s, *f, kind & KIND);
  return 1;
}

uint32_t zn_flow_hook(zn_device_hooks *h, const void *cond, const void *count, intptr_t most, uint32_t kind) {
  zn_session *s = (zn_session *)(void *)h;
  const zn_flow f = {zn_cuda_address(s, cond), zn_cuda_address(s, count), most, kind};
  if ((kind & KIND) == IF || (kind & KIND) == WHILE) return begin_region(s, &f, kind);
  if ((kind & KIND) == END) {
    if (!(kind & COND) && turn(s, &f, &s->turns[s->open_flows - 1])) return 1;
    s->open_flows--;
  }
  put(s, f, kind & KIND);
  return 0;
}

/* A graph of one condition with nothing behind it: what a driver can do is known when it has done it. */
static int try_it(zn_session *s, int flows) {
  const uint64_t cell = (uint64_t)(uintptr_t)s->flow_cell;
  const zn_flow begin_if = {.cond = cell, .kind = IF | COND}, turn = {.kind = ELSE}, end = {.kind = END};
  void *graph = NULL, *exec = NULL;
  s->stream = s->own_stream;
  s->flows = flows;
  s->status = 0;
  int rc = s->cu.capture_begin(s->stream, RELAXED);
  if (rc) return 0;
  zn_flow_record(s, &begin_if);
  if (!s->status) zn_cuda_keep(s, s->cu.set8(cell, 1, 8, s->stream), "recording");
  if (!s->status) zn_flow_record(s, &turn);
  if (!s->status) zn_flow_record(s, &end);
  zn_flow_unwind(s);
  rc = s->cu.capture_end(s->stream, &graph);
  if (!rc && !s->status) rc = s->cu.graph_instantiate(&exec, graph, 0);
  if (!rc && exec) rc = s->cu.graph_launch(exec, s->stream);
  if (!rc && exec) rc = s->cu.stream_wait(s->stream);
  if (exec) s->cu.graph_exec_destroy(exec);
  if (graph) s->cu.graph_destroy(graph);
  return !rc && exec;
}

void zn_flow_open(zn_session *s) {
  const driver *cu = &s->cu;
  void *user = s->stream;
  uint64_t cell = 0;
  if (s->flows_known) return;
  s->flows_known = 1;
  if (!cu->conditional_handle || !cu->graph_add_node || !cu->capture_info || !cu->capture_update || !cu->capture_to_graph) return;
  if (cu->module_load(&s->flow_module, decide_ptx) || cu->module_function(&s->decide, s->flow_module, "zn_decide")) return;
  if (cu->mem_alloc(&cell, 8)) return;
  s->flow_cell = (void *)(uintptr_t)cell;
  if (!cu->set8(cell, 1, 8, s->own_stream) && !cu->stream_wait(s->own_stream))
    if (!try_it(s, ZN_FLOWS_ELSE) && !try_it(s, ZN_FLOWS_IF)) s->flows = 0;
  s->stream = user;
  s->status = 0;
  s->text[0] = 0;
}

void zn_flow_close(zn_session *s) {
  for (unsigned i = 0; i < MAX_LEVELS; i++)
    if (s->levels[i].stream) s->cu.stream_destroy(s->levels[i].stream);
  if (s->flow_cell) s->cu.mem_free((uint64_t)(uintptr_t)s->flow_cell);
  if (s->flow_module) s->cu.module_unload(s->flow_module);
}
