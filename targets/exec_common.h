/* Running any artifact with the zenith.h ABI: plan, allocate, run, explain failures. Shared by
 * interp and native. */
#ifndef ZN_EXEC_COMMON_H
#define ZN_EXEC_COMMON_H
#include "runtime/zenith.h"
#include "zenithc/base/tensor.h"

/* One call of an entry: plan (ws points at the uint64_t that receives the workspace size, ws_bytes
 * 0) or run. Returns zn_result, or a negative number when the failure is reported already. */
typedef int32_t (*zn_exec_call)(void *user, bool plan, zn_tensor *in, zn_tensor *out, void *ws,
                                uint64_t ws_bytes, const zn_host *host);

/* base (NULL: no hooks) with an allocator that takes from a, and a decoder of images. */
zn_host zn_exec_host(zn_arena *a, const zn_host *base);
/* Borrows the data of tensors; lists are made in a. */
void zn_exec_to_abi(zn_arena *a, const zn_htensor *t, zn_tensor *out);
/* in[num_in] and out[num_out] as for zn_target.run: out[i].data NULL is taken from a (64-byte
 * aligned) with the shape that run reports; otherwise the buffer has the size of out[i]'s own dtype
 * and dims. Workspace and what the run allocates come from a. Every result code becomes a diagnostic that names the
 * model. */
zn_status zn_exec_run_entries(zn_ctx *c, zn_arena *a, const char *model_name, uint32_t num_in,
                              uint32_t num_out, zn_exec_call call, void *user, const zn_host *base,
                              const zn_htensor *in, zn_htensor *out);
#endif
