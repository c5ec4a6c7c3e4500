/* What the subcommands share: files, temporary folders, tensors on disk, opening a model or artifact to run it. */
#ifndef ZN_TOOLS_H
#define ZN_TOOLS_H
#include "zenithc/base/file.h"
#include "zenithc/driver/compile.h"
#include "zenithc/driver/npy.h"
#include "zenithc/driver/options.h"

/* ---- files (files.c) ---- */
int64_t zn_file_size(const char *path); /* -1: not a file */
bool zn_is_dir(const char *path);
bool zn_is_special(const char *path); /* there is something, neither file nor folder: a device, a pipe */
bool zn_same_file(const char *a, const char *b);
/* What a link leads to; path itself when it is none, or leads to nothing. */
const char *zn_behind_links(zn_arena *a, const char *path);
/* ZN_ERR_USAGE, reported, when the option's value is a file; NULL, a folder and nothing at all are fine. */
zn_status zn_folder_option(zn_ctx *c, const char *option, const char *path);
/* Sorted names in a folder, without . and .. */
zn_status zn_list_dir(zn_ctx *c, zn_arena *a, const char *path, const char ***out_names, uint32_t *out_n);
/* A fresh folder in `near` (NULL: $TMPDIR or /tmp); removed with all it holds by zn_tmp_remove, at exit and when a
 * signal ends the process. One at a time per process; a second call while one is held returns a folder inside it. */
zn_status zn_tmp_make(zn_ctx *c, const char *near, const char **out_dir);
void zn_tmp_remove(void);
/* In a child after fork: the folder belongs to the parent. */
void zn_tmp_disown(void);
void zn_remove_tree(const char *path);
/* Moves every file of dir to the folder of out, out itself last. */
zn_status zn_tmp_publish(zn_ctx *c, const char *dir, const char *out);

/* ---- tensors (values.c) ---- */
/* By suffix: .pb, .npy, .npz (entry `name`); lists from .pb only. */
zn_status zn_value_read(zn_ctx *c, zn_arena *a, const char *path, const char *name, zn_vkind kind, zn_htensor *out);
zn_status zn_value_from_pb(zn_ctx *c, zn_arena *a, const zn_pb_value *v, zn_htensor *out);
/* What an empty list does not tell by itself: its type. */
void zn_value_settle(zn_htensor *t, zn_dtype dtype, bool of);
/* "f32[1,3,224,224]" */
const char *zn_tensor_text(zn_arena *a, const zn_htensor *t);
/* One element as text. */
void zn_tensor_elem(zn_text *t, const zn_htensor *x, uint64_t i);
/* Shape, dtype, min/max/mean, first values, top-5 of vectors. */
void zn_tensor_summary(FILE *f, zn_arena *a, const zn_htensor *t, bool top);

/* ---- a model ready to run (session.c) ---- */
typedef struct zn_session {
  const char *path;
  const zn_target *target;
  zn_caps caps;           /* of a compiled model */
  zn_exec *exec;
  const zn_graph *graph;  /* NULL for artifacts */
  const zn_kmod *mod;     /* NULL for shared objects */
  const zn_compiled *more; /* other instruction sets of the same artifact */
  uint32_t num_more;
  zn_plan_stats plan;
  uint32_t num_in, num_out;
  zn_kio *in, *out;
  double seconds_compile, seconds_load;
} zn_session;
/* Options of the compile pipeline from the command line. */
zn_status zn_opts_compile(zn_ctx *c, const zn_opts *o, const char *model, zn_compile_opts *out);
/* .so and .zk are artifacts; everything else is compiled into a temporary folder, built and loaded. */
zn_status zn_session_open(zn_ctx *c, const zn_opts *o, const char *path, zn_session *out);
/* From a compiled model. dir: where the artifact is written (unused by targets that run the module itself). */
zn_status zn_session_load(zn_ctx *c, const zn_compiled *k, const zn_target *t, int level, const char *dir,
                          zn_session *out);
/* An artifact that is built already (path; the interpreter runs the module). */
zn_status zn_session_attach(zn_ctx *c, const zn_compiled *k, const zn_target *t, const char *path, zn_session *out);
bool zn_can_run(const zn_target *t, const zn_caps *caps, const char **out_why);
void zn_session_close(zn_session *s);
/* Can the target's artifacts be dlopened here and timed? */
bool zn_session_is_native(const zn_session *s);

/* Prints the descriptor of a shared object (inspect_artifact.c). */
zn_status zn_inspect_artifact(zn_ctx *c, const char *path, bool json);

/* ---- inputs (inputs.c) ---- */
/* Does t fit what the model declares (dtype, rank, static dims)? Reports what differs. */
zn_status zn_value_fits(zn_ctx *c, const zn_kio *io, const zn_htensor *t);
/* Values from --input files; the others are generated from the seed. Symbolic dimensions of generated inputs take
 * --dim NAME=VALUE, what the files' shapes say, or `otherwise` (0: small values that suit them; -n: n times these, batches
 * apart). g may be NULL: then integers are 0 and 1, as they may index something. */
zn_status zn_inputs_make(zn_ctx *c, const zn_opts *o, zn_arena *a, const zn_kio *io, uint32_t n, const zn_graph *g,
                         uint64_t seed, int64_t otherwise, zn_htensor **out);

/* ---- subcommands: each returns the exit code ---- */
#define CMD(id, letter, args, doc, examples) int zn_cmd_##id(zn_ctx *c, const zn_opts *o);
#include "zenithc/driver/commands.def"
#undef CMD
#endif
