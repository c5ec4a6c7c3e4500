/* The command line, from the tables commands.def and options.def. Values stay text, checked while parsing; the typed
 * getters below convert. Strings are borrowed from argv or live in the context's perm arena. */
#ifndef ZN_OPTIONS_H
#define ZN_OPTIONS_H
#include "zenithc/base/diag.h"

typedef enum zn_cmd {
#define CMD(id, letter, args, doc, examples) ZN_CMD_##id,
#include "zenithc/driver/commands.def"
#undef CMD
  ZN_CMD_COUNT
} zn_cmd;

typedef enum zn_optid {
#define OPT(id, spelling, arg, kind, cmds, values, doc) ZN_O_##id,
#include "zenithc/driver/options.def"
#undef OPT
  ZN_O_COUNT
} zn_optid;

typedef enum zn_optkind {
  ZN_OK_FLAG, ZN_OK_STR, ZN_OK_LIST, ZN_OK_INT, ZN_OK_COUNT, ZN_OK_THREADS, ZN_OK_REAL,
  ZN_OK_SPAN, ZN_OK_BYTES, ZN_OK_CHOICE, ZN_OK_LETTERS
} zn_optkind;

typedef struct zn_optdef {
  const char *id, *spelling, *arg;
  zn_optkind kind;
  const char *cmds, *values, *doc;
} zn_optdef;
extern const zn_optdef zn_optdefs[ZN_O_COUNT];

typedef struct zn_cmddef {
  const char *name, *args, *doc, *examples;
  char letter; /* in options.def */
} zn_cmddef;
extern const zn_cmddef zn_cmddefs[ZN_CMD_COUNT];

typedef struct zn_opts {
  zn_cmd cmd;
  const char **args; /* what is not an option */
  uint32_t num_args, cap_args;
  struct zn_optval {
    const char **v;
    uint32_t n, cap;
  } val[ZN_O_COUNT];
} zn_opts;

/* argv[1] may name a subcommand. Reads --config too. ZN_ERR_USAGE with a diagnostic and the nearest spelling. */
zn_status zn_opts_parse(zn_ctx *c, int argc, char *const *argv, zn_opts *out);
/* Options by id ("opt-level" style names are the spellings without dashes) from a YAML mapping; never replaces what
 * is set already. text is borrowed during the call; path is for diagnostics. */
zn_status zn_opts_yaml(zn_ctx *c, zn_opts *o, const char *path, const char *text, size_t n);
/* Sets one value as if written on the command line, checked. */
zn_status zn_opts_set(zn_ctx *c, zn_opts *o, zn_optid id, const char *value);
bool zn_opt_allowed(zn_optid id, zn_cmd cmd);
/* By spelling without dashes ("max-ram", "O", "o"); ZN_O_COUNT when unknown. */
zn_optid zn_opt_find(const char *name, size_t n);

bool zn_opt_given(const zn_opts *o, zn_optid id);
/* The last value, else the default of the table (NULL for ""). Of a CHOICE use zn_opt_is. */
const char *zn_opt_str(const zn_opts *o, zn_optid id);
bool zn_opt_is(const zn_opts *o, zn_optid id, const char *value);
int64_t zn_opt_int(const zn_opts *o, zn_optid id, int64_t otherwise);
double zn_opt_real(const zn_opts *o, zn_optid id, double otherwise);
uint64_t zn_opt_bytes(const zn_opts *o, zn_optid id); /* 0 when absent */
/* 64K, 1.5M, 2G, 4096: bytes. */
bool zn_parse_bytes(const char *s, uint64_t *out);
/* Of the candidates, the nearest to word by edit distance, or NULL when none is near. */
const char *zn_nearest_command(const char *word); /* NULL: none is near */
const char *zn_nearest(const char *word, const char *const *candidates, uint32_t n);

/* help.c: one screen, Markdown page, manual page. */
void zn_help_command(zn_cmd cmd, FILE *f);
void zn_help_overview(FILE *f);
void zn_help_markdown(FILE *f);
void zn_help_man(FILE *f);
#define ZN_VERSION "0.1.0"
#endif
