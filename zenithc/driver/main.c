/* zenithc: parses the command line and hands over to the subcommand. */
#include <signal.h>
#include <unistd.h>

#include "zenithc/driver/tools.h"

static int help(zn_ctx *c, int argc, char **argv) {
  if (argc < 3) zn_help_overview(stdout);
  else if (!strcmp(argv[2], "--markdown")) zn_help_markdown(stdout);
  else if (!strcmp(argv[2], "--man")) zn_help_man(stdout);
  else {
    for (unsigned k = 0; k < ZN_CMD_COUNT; k++) {
      if (strcmp(argv[2], zn_cmddefs[k].name)) continue;
      zn_help_command((zn_cmd)k, stdout);
      return 0;
    }
    const char *near = zn_nearest_command(argv[2]);
    zn_fail(c, ZN_ERR_USAGE, NULL, "no command is called '%s'", argv[2]);
    if (near) zn_help(c, "did you mean `zenithc help %s`?", near);
    return 2;
  }
  return 0;
}

static int dispatch(zn_ctx *c, const zn_opts *o) {
  switch (o->cmd) {
#define CMD(id, letter, args, doc, examples)                                                       \
  case ZN_CMD_##id: return zn_cmd_##id(c, o);
#include "zenithc/driver/commands.def"
#undef CMD
    default: return 2;
  }
}

int main(int argc, char **argv) {
  zn_ctx c;
  zn_opts o;
  signal(SIGPIPE, SIG_IGN); /* a closed pipe is a write error, so temporary files are still removed */
  if (argc < 2) {
    zn_help_overview(stderr);
    return 2;
  }
  zn_ctx_init(&c);
  int code = 0;
  if (!strcmp(argv[1], "help")) {
    code = help(&c, argc, argv);
    zn_ctx_fini(&c);
    return fflush(stdout) != 0 && !code ? 2 : code;
  }
  zn_status st = zn_opts_parse(&c, argc, argv, &o);
  c.verbosity = st == ZN_OK && zn_opt_given(&o, ZN_O_verbose) ? 1 : 0;
  if (st != ZN_OK) code = zn_exit_code(st);
  else if (zn_opt_given(&o, ZN_O_help)) zn_help_command(o.cmd, stdout);
  else if (zn_opt_given(&o, ZN_O_version)) puts("zenithc " ZN_VERSION);
  else code = dispatch(&c, &o);
  zn_tmp_remove();
  zn_ctx_fini(&c);
  if (fflush(stdout) != 0 || ferror(stdout)) return code ? code : 2;
  return code;
}
