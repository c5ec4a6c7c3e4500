/* zenithc run: one run, its outputs printed and written. */
#include <errno.h>
#include <sys/stat.h>

#include "targets/native.h"
#include "zenithc/driver/tools.h"

static zn_status need_one(zn_ctx *c, const zn_opts *o) {
  if (o->num_args == 1) return ZN_OK;
  zn_fail(c, ZN_ERR_USAGE, NULL, "expected one model or artifact, got %u", o->num_args);
  zn_help(c, "`zenithc %s --help` shows examples", zn_cmddefs[o->cmd].name);
  return ZN_ERR_USAGE;
}

/* An output's name as a file name. */
static const char *file_name(zn_arena *a, const char *name) {
  char *s = zn_arena_strdup(a, *name ? name : "output");
  for (char *p = s; *p; p++)
    if (*p == '/' || (unsigned char)*p < ' ' || (p == s && *p == '.')) *p = '_';
  return s;
}

static zn_status run(zn_ctx *c, const zn_opts *o) {
  zn_session s;
  zn_htensor *in;
  ZN_TRY(need_one(c, o));
  ZN_TRY(zn_folder_option(c, "--output-dir", zn_opt_str(o, ZN_O_output_dir)));
  c->file = o->args[0];
  ZN_TRY(zn_session_open(c, o, o->args[0], &s));
  zn_status st = zn_session_is_native(&s) ? zn_native_set_threads(c, s.exec, (unsigned)zn_opt_int(o, ZN_O_threads, 1)) : ZN_OK;
  if (st == ZN_OK)
    st = zn_inputs_make(c, o, &c->perm, s.in, s.num_in, s.graph, (uint64_t)zn_opt_int(o, ZN_O_random, 0), 1, &in);
  zn_htensor *out = ZN_ARRAY(&c->perm, zn_htensor, s.num_out);
  if (st == ZN_OK) st = s.target->run(c, s.exec, &c->perm, in, out);
  const char *dir = zn_opt_str(o, ZN_O_output_dir);
  if (st == ZN_OK && dir && mkdir(dir, 0777) && errno != EEXIST)
    st = zn_fail(c, ZN_ERR_IO, dir, "cannot be made: %s", strerror(errno));
  for (uint32_t i = 0; i < s.num_out && st == ZN_OK; i++) {
    out[i].name = s.out[i].name;
    zn_tensor_summary(stdout, &c->perm, &out[i], true);
    const char *base = dir ? zn_arena_printf(&c->perm, "%s/%s", dir, file_name(&c->perm, out[i].name)) : NULL;
    if (dir && out[i].kind == ZN_V_TENSOR) st = zn_npy_write(c, zn_arena_printf(&c->perm, "%s.npy", base), &out[i]);
    else if (dir) st = zn_pb_write(c, zn_arena_printf(&c->perm, "%s.pb", base), &out[i]);
  }
  zn_session_close(&s);
  return st;
}

int zn_cmd_run(zn_ctx *c, const zn_opts *o) { return zn_exit_code(run(c, o)); }
