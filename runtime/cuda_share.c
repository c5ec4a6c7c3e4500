/* Host and device twins. Each place that the host and the device both use has an address on either side and a note of which
 * side holds what was stored last; it is copied when the other side comes next. Part of the runtime object of CUDA artifacts. */
#include <stdlib.h>
#include <string.h>

#include "cuda_session.h"

enum { HOST = 1, DEVICE = 2 };                             /* sides, as bits */
enum { TO_DEVICE = 1, TO_OWNER = 2, WRITES = 4, ALIGN = 64 }; /* flags of the hook: zn_share_flags */

typedef struct twin {
  char *host;
  uint64_t dev; /* 0: made when the device first needs it */
  size_t bytes;
  unsigned owner;   /* the caller's side */
  unsigned initial; /* where its contents are at first: 0 nowhere */
  int own_host, own_dev;
} twin;

typedef struct piece { /* of a twin, as the entry uses it */
  char *at;
  size_t bytes;
  unsigned valid;
} piece;

struct zn_share {
  twin *twins;
  piece *pieces;
  size_t num_twins, cap_twins, num_pieces, cap_pieces;
  char *ws; /* the session's own workspace of the host */
  size_t ws_bytes;
  const zn_host *caller;
  void **blocks; /* memory without a bound, until the next run, where the caller gives no allocator */
  size_t num_blocks, cap_blocks;
};

zn_share *zn_share_open(void) { return calloc(1, sizeof(zn_share)); }

static void *aligned(size_t bytes) { return aligned_alloc(ALIGN, (bytes + ALIGN) & ~(size_t)(ALIGN - 1)); }

static int room(void **list, size_t n, size_t *cap, size_t size) {
  if (n < *cap) return 1;
  size_t more = *cap ? *cap * 2 : 16;
  void *p = realloc(*list, more * size);
  if (!p) return 0;
  *list = p;
  *cap = more;
  return 1;
}

static void forget(zn_session *s) {
  zn_share *h = s->share;
  for (size_t i = 0; i < h->num_twins; i++) {
    if (h->twins[i].own_host) free(h->twins[i].host);
    if (h->twins[i].own_dev && h->twins[i].dev) s->cu.mem_free(h->twins[i].dev);
  }
  for (size_t i = 0; i < h->num_blocks; i++) free(h->blocks[i]);
  h->num_twins = h->num_pieces = h->num_blocks = 0;
}

void zn_share_close(zn_session *s) {
  if (!s->share) return;
  forget(s);
  free(s->share->twins);
  free(s->share->pieces);
  free(s->share->blocks);
  free(s->share->ws);
  free(s->share);
  s->share = NULL;
}

static int32_t add_twin(zn_session *s, twin t) {
  zn_share *h = s->share;
  if (!room((void **)&h->twins, h->num_twins, &h->cap_twins, sizeof *h->twins)) return ZN_RUN_ALLOC;
  h->twins[h->num_twins++] = t;
  return ZN_RUN_OK;
}

/* Memory without a bound: from the caller, else kept until the next run. */
static void *allocate(void *user, size_t bytes) {
  zn_session *s = user;
  zn_share *h = s->share;
  void *p;
  if (h->caller) {
    p = h->caller->alloc ? h->caller->alloc(h->caller->alloc_user, bytes) : NULL;
  } else {
    p = room((void **)&h->blocks, h->num_blocks, &h->cap_blocks, sizeof *h->blocks) ? aligned(bytes) : NULL;
    if (p) h->blocks[h->num_blocks++] = p;
  }
  const twin t = {.host = p, .bytes = bytes, .owner = HOST, .own_dev = 1};
  return p && add_twin(s, t) == ZN_RUN_OK ? p : NULL;
}

void zn_share_begin(zn_session *s, const zn_host *host) {
  forget(s);
  s->share->caller = host;
  s->hooks.base = host ? *host : (zn_host){0};
  s->hooks.base.alloc_user = s;
  s->hooks.base.alloc = host && !host->alloc ? NULL : allocate;
}

static twin *find(zn_session *s, const char *p) {
  zn_share *h = s->share;
  for (size_t i = h->num_twins; i-- > 0;)
    if ((size_t)(p - h->twins[i].host) < h->twins[i].bytes) return &h->twins[i];
  return NULL;
}

uint64_t zn_share_device(zn_session *s, const void *p) {
  twin *t = find(s, p);
  if (!t) return (uint64_t)(uintptr_t)p; /* an empty tensor, or the caller's own before the run */
  if (!t->dev) zn_cuda_keep(s, s->cu.mem_alloc(&t->dev, t->bytes), "device memory");
  return t->dev + (uint64_t)((const char *)p - t->host);
}

int zn_share_lies_here(zn_session *s, const void *p) {
  const twin *t = find(s, p);
  return t ? t->initial == HOST : zn_cuda_is_host(s, p);
}

static piece *piece_at(zn_session *s, char *p, size_t bytes) {
  zn_share *h = s->share;
  const twin *t = find(s, p);
  size_t i = 0;
  while (i < h->num_pieces && h->pieces[i].at != p) i++;
  if (i < h->num_pieces && h->pieces[i].bytes == bytes) return &h->pieces[i];
  if (i == h->num_pieces) {
    if (!room((void **)&h->pieces, h->num_pieces, &h->cap_pieces, sizeof *h->pieces)) return NULL;
    h->num_pieces++;
  }
  h->pieces[i] = (piece){p, bytes, t ? t->initial : 0};
  return &h->pieces[i];
}

static void move(zn_session *s, const piece *k, unsigned to) {
  uint64_t dev = zn_share_device(s, k->at);
  zn_tape_flush(s);
  if (s->status) return;
  if (to == DEVICE) zn_cuda_keep(s, s->cu.copy_in(dev, k->at, k->bytes, s->stream), "copying to the device");
  else zn_cuda_keep(s, s->cu.copy_out(k->at, dev, k->bytes, s->stream), "copying to the host");
  zn_cuda_keep(s, s->cu.stream_wait(s->stream), "waiting for a copy");
  s->after_kernel = 0;
}

void zn_share_hook(zn_device_hooks *hooks, void *p, intptr_t bytes, uint32_t flags) {
  zn_session *s = (zn_session *)(void *)hooks;
  if (s->status || bytes <= 0 || !p) return;
  const twin *t = find(s, p);
  unsigned side = flags & TO_DEVICE ? DEVICE : HOST;
  if (flags & TO_OWNER) side = t ? t->owner : HOST;
  piece *k = piece_at(s, p, (size_t)bytes);
  if (!k) {
    s->status = ZN_RUN_ALLOC;
    return;
  }
  if (k->valid && !(k->valid & side)) move(s, k, side);
  k->valid = flags & WRITES ? side : k->valid | side;
}

/* ---- a run's tensors ---- */

static int host_only(const zn_io_desc *d) { return ZN_KIND(d->dtype) || (d->dtype & 0xff) == 8; /* lists, strings */ }

/* The entry sees t's host address: the caller's, or a twin's of the caller's device memory. */
static int32_t stage(zn_session *s, zn_tensor *t, place *on_device, int filled) {
  twin w = {.host = t->u.data, .bytes = t->bytes};
  if (!t->u.data || !t->bytes) return ZN_RUN_OK;
  if (zn_cuda_is_host(s, t->u.data)) {
    int32_t rc = zn_cuda_grow(s, on_device, t->bytes);
    if (rc) return rc;
    w.dev = on_device->p;
    w.owner = HOST;
  } else {
    w.dev = t->u.data_bits;
    w.host = aligned(t->bytes);
    w.owner = DEVICE;
    w.own_host = 1;
    if (!w.host) return ZN_RUN_ALLOC;
    t->u.data = w.host;
  }
  w.initial = filled ? w.owner : 0;
  return add_twin(s, w);
}

int32_t zn_share_stage(zn_session *s, const zn_tensor *in, const zn_tensor *out, zn_tensor *dev_in, zn_tensor *dev_out,
                       void *ws, size_t ws_bytes, void **out_ws) {
  zn_share *h = s->share;
  if (!ws && h->ws_bytes < ws_bytes + 1) {
    free(h->ws);
    h->ws_bytes = ws_bytes + 1;
    h->ws = aligned(h->ws_bytes);
    if (!h->ws) h->ws_bytes = 0;
  }
  *out_ws = ws ? ws : h->ws;
  if (!*out_ws) return ZN_RUN_ALLOC;
  const twin w = {.host = *out_ws, .dev = s->ws.p, .bytes = ws_bytes, .owner = HOST};
  int32_t rc = add_twin(s, w);
  for (uint32_t i = 0; i < zn_model_main.num_inputs && !rc; i++) {
    dev_in[i] = in[i];
    if (!host_only(&zn_model_main.inputs[i])) rc = stage(s, &dev_in[i], &s->in_stage[i], 1);
  }
  for (uint32_t i = 0; i < zn_model_main.num_outputs && !rc; i++) {
    dev_out[i] = out[i];
    if (!host_only(&zn_model_main.outputs[i])) rc = stage(s, &dev_out[i], &s->out_stage[i], 0);
  }
  return rc;
}

void zn_share_collect(zn_tensor *out, const zn_tensor *dev, const zn_tensor *plan) {
  for (uint32_t i = 0; i < zn_model_main.num_outputs; i++) {
    void *data = out[i].u.data;
    uint64_t bytes = out[i].bytes;
    int found = ZN_KIND(zn_model_main.outputs[i].dtype) != 0; /* its memory is the run's */
    for (uint32_t d = 0; d < plan[i].rank && d < ZN_ABI_MAX_RANK; d++) found |= plan[i].shape[d] < 0;
    out[i] = dev[i];
    if (found) continue;
    out[i].u.data = data;
    out[i].bytes = bytes;
  }
}
