/* A session of a CUDA artifact: what the files of its runtime object share. Nothing outside it includes this. */
#ifndef ZN_CUDA_SESSION_H
#define ZN_CUDA_SESSION_H
#include <stddef.h>

#include "cuda_blob.h"
#include "zenith_device.h"

#define HIDDEN __attribute__((visibility("hidden")))
#define WEAK_HIDDEN __attribute__((weak, visibility("hidden")))

/* what the artifact's own object provides */
extern HIDDEN const unsigned char zn_device_blob[];
extern WEAK_HIDDEN const unsigned char zn_device_weights[];
extern const zn_model zn_model_main;

enum { MAX_LEVELS = 8 }; /* regions inside one another that are recorded */
enum { MAX_GRAPHS = 16, MAX_PARAMS = 256, BLOCK = 128, SHARED_FREE = 48 << 10, OUT_OF_MEMORY = 2, NO_BINARY = 209 };
enum { EARLY_SM = 90, ATTR_EARLY_START = 6 }; /* programmatic stream serialization: kernels wait for the one before themselves */
enum { ATTR_SHARED = 8, ATTR_MEMORY_TYPE = 2, ATTR_MULTIPROCESSORS = 16, MEMORY_HOST = 1 };

typedef struct driver {
#define CUDA_FN(name, symbol, params) int(*name) params;
#include "cuda.def"
#undef CUDA_FN
  void *handle;
} driver;

/* CUlaunchAttribute and CUlaunchConfig of cuda.h */
typedef struct launch_attribute {
  int id, pad;
  int value[16];
} launch_attribute;

typedef struct launch_config {
  unsigned grid[3], block[3], shared;
  void *stream;
  const launch_attribute *attributes;
  unsigned num_attributes;
} launch_config;

typedef struct place { /* a device buffer that grows */
  uint64_t p;
  size_t bytes;
} place;

typedef struct record { /* a run as a graph, for one set of shapes and pointers */
  void *exec;
  uint64_t key;
  zn_tensor *in, *out; /* as given; out with the shapes that the run told */
  unsigned seen;
} record;

typedef struct zn_launch { /* of a kernel, ready for the driver */
  uint32_t kernel, blocks, threads, shared;
  uint32_t early, num;         /* starts before the kernel before it has ended; parameters */
  uint64_t value[MAX_PARAMS];
} zn_launch;
#define ZN_LAUNCH_BYTES(num) (offsetof(zn_launch, value) + (num) * sizeof(uint64_t))

typedef struct zn_flow { /* Flow of the entry, with addresses of the device */
  uint64_t cond, count;
  int64_t most;
  uint64_t kind;
} zn_flow;

typedef struct zn_level { /* a region that is being recorded */
  void *stream, *outer;      /* records the body; what goes on behind it */
  uint64_t yes, no;          /* handles of its conditions */
  uint64_t cond, count;
  int64_t most;
  void *other;               /* the graph of the else branch, where one node has both */
  int is_if, has_no, inside;
} zn_level;
typedef struct zn_turns { /* of a counted loop, that the entry passes through several times: before its node; in it, left */
  int before, passes;
} zn_turns;
enum { ZN_FLOWS_IF = 1, ZN_FLOWS_ELSE = 2 }; /* with one branch; with two, since CUDA 12.8 */

typedef struct zn_tape zn_tape;
typedef struct zn_share zn_share;

struct zn_session {
  zn_device_hooks hooks; /* first: the hooks are the session */
  driver cu;
  int device;
  unsigned multiprocessors;
  void *ctx, *own_stream, *stream;
  void **modules, **functions;
  uint64_t weights;
  place ws, *in_stage, *out_stage;
  int32_t *code; /* pinned: the run's result */
  record graphs[MAX_GRAPHS];
  unsigned num_graphs;
  int after_kernel; /* the last thing in the stream, in this run, is a kernel */
  int capturing, dynamic; /* dynamic: the entry needs data on the way, so no graph */
  int32_t status;         /* first failure inside an entry */
  void **events;          /* profiling: two per launch, and which kernel it was */
  uint32_t *event_kernel, num_events, cap_events;
  char text[256];
  zn_share *share; /* of artifacts in which the host has a part; else NULL */
  zn_tape *tape;   /* of runs that are recorded in stretches; else NULL */
  int flows;       /* this driver takes conditions in graphs: ZN_FLOWS; 0: no */
  int flows_known;
  void *flow_module, *decide, *flow_cell;
  zn_level levels[MAX_LEVELS];
  zn_turns turns[MAX_LEVELS];
  unsigned depth, open_flows; /* being recorded; begun by the entry */
};

/* Keeps a driver's code as text; its zn_result. 0 is no failure. */
HIDDEN int32_t zn_cuda_fail(zn_session *s, int code, const char *what);
/* The same for what happens inside an entry: the first failure ends the run's work. */
HIDDEN void zn_cuda_keep(zn_session *s, int code, const char *what);
HIDDEN int zn_cuda_is_host(zn_session *s, const void *p);
/* Room for bytes on the device. */
HIDDEN int32_t zn_cuda_grow(zn_session *s, place *b, size_t bytes);

/* The device address of what the entry names. */
HIDDEN uint64_t zn_cuda_address(zn_session *s, const void *p);
/* Enqueues l, or records it. */
HIDDEN void zn_cuda_launch(zn_session *s, const zn_launch *l);

/* ---- cuda_flow.c: If and Loop that the device decides ---- */
/* Finds out what this driver can, once: s->flows. Before the first recording, not during it. */
HIDDEN void zn_flow_open(zn_session *s);
HIDDEN void zn_flow_close(zn_session *s);
HIDDEN uint32_t zn_flow_hook(zn_device_hooks *h, const void *cond, const void *count, intptr_t most, uint32_t kind);
/* Into the graph that s->stream records. */
HIDDEN void zn_flow_record(zn_session *s, const zn_flow *f);
/* Ends the recording of regions that an error left open. */
HIDDEN void zn_flow_unwind(zn_session *s);

/* ---- cuda_tape.c: stretches of a run as graphs ---- */
HIDDEN zn_tape *zn_tape_open(void);
HIDDEN void zn_tape_close(zn_session *s);
HIDDEN void zn_tape_launch(zn_session *s, const zn_launch *l);
HIDDEN void zn_tape_flow(zn_session *s, const zn_flow *f);
/* Enqueues what was noted. Before whatever must come behind it. */
HIDDEN void zn_tape_flush(zn_session *s);
/* Buffers have moved: no stretch comes again. */
HIDDEN void zn_tape_forget(zn_session *s);

/* ---- cuda_share.c: places that both the host and the device use. In such an artifact all addresses that the entry sees are the
 * host's; each has a twin on the device. ---- */
HIDDEN zn_share *zn_share_open(void);
HIDDEN void zn_share_close(zn_session *s);
/* Forgets the last run's twins and frees what they needed. host: hooks of the caller, NULL for the session's own memory. */
HIDDEN void zn_share_begin(zn_session *s, const zn_host *host);
/* Workspace, inputs and outputs of a run get twins; dev_in and dev_out get the addresses that the entry shall see. ws: the
 * caller's (ws_bytes of it), or NULL for the session's own; returns it in *out_ws. */
HIDDEN int32_t zn_share_stage(zn_session *s, const zn_tensor *in, const zn_tensor *out, zn_tensor *dev_in, zn_tensor *dev_out,
                              void *ws, size_t ws_bytes, void **out_ws);
/* Results to the caller's tensors. plan: what the plan said. */
HIDDEN void zn_share_collect(zn_tensor *out, const zn_tensor *dev, const zn_tensor *plan);
/* The device address behind an address of the entry; p itself where it has none. */
HIDDEN uint64_t zn_share_device(zn_session *s, const void *p);
/* Is what the caller put at p memory of the host? */
HIDDEN int zn_share_lies_here(zn_session *s, const void *p);
HIDDEN void zn_share_hook(zn_device_hooks *h, void *p, intptr_t bytes, uint32_t flags);
#endif

