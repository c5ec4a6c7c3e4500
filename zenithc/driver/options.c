/* Parses the command line against options.def: spellings, checked values, suggestions for what is misspelt. */
#include "zenithc/driver/options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>

#include "runtime/zenith_pool.h"
#include "zenithc/driver/tools.h"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

const zn_optdef zn_optdefs[ZN_O_COUNT] = {
#define OPT(id, spelling, arg, kind, cmds, values, doc)                                            \
  {#id, spelling, arg, ZN_OK_##kind, cmds, values, doc},
#include "zenithc/driver/options.def"
#undef OPT
};

const zn_cmddef zn_cmddefs[ZN_CMD_COUNT] = {
#define CMD(id, letter, args, doc, examples) {#id, args, doc, examples, letter},
#include "zenithc/driver/commands.def"
#undef CMD
};

bool zn_opt_allowed(zn_optid id, zn_cmd cmd) {
  return strchr(zn_optdefs[id].cmds, zn_cmddefs[cmd].letter) != NULL;
}

static const char *bare(const char *spelling) { return spelling + strspn(spelling, "-"); }

zn_optid zn_opt_find(const char *name, size_t n) {
  for (unsigned i = 0; i < ZN_O_COUNT; i++) {
    const char *s = bare(zn_optdefs[i].spelling);
    if (strlen(s) == n && !memcmp(s, name, n)) return (zn_optid)i;
  }
  return ZN_O_COUNT;
}

static unsigned least(unsigned a, unsigned b) { return a < b ? a : b; }

/* Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours. */
static unsigned distance(const char *a, const char *b) {
  enum { MAX = 40 };
  unsigned d[MAX + 1][MAX + 1];
  size_t n = strlen(a), m = strlen(b);
  if (n > MAX || m > MAX) return MAX;
  for (unsigned i = 0; i <= n; i++) d[i][0] = i;
  for (unsigned j = 0; j <= m; j++) d[0][j] = j;
  for (unsigned i = 1; i <= n; i++)
    for (unsigned j = 1; j <= m; j++) {
      unsigned sub = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      d[i][j] = least(sub, least(d[i - 1][j], d[i][j - 1]) + 1);
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[n][m];
}

const char *zn_nearest(const char *word, const char *const *candidates, uint32_t n) {
  const char *best = NULL;
  unsigned best_d = (unsigned)strlen(word) / 3 + 1;
  for (uint32_t i = 0; i < n; i++) {
    unsigned d = distance(word, candidates[i]);
    if (d <= best_d && (!best || d < best_d)) best = candidates[i], best_d = d;
  }
  return best;
}

const char *zn_nearest_command(const char *word) {
  const char *names[ZN_CMD_COUNT];
  for (unsigned i = 0; i < ZN_CMD_COUNT; i++) names[i] = zn_cmddefs[i].name;
  return zn_nearest(word, names, ZN_CMD_COUNT);
}

bool zn_parse_bytes(const char *s, uint64_t *out) {
  char *end;
  if (!isdigit((unsigned char)*s)) return false;
  double x = strtod(s, &end);
  if (*end == 'K' || *end == 'k') x *= 1024, end++;
  else if (*end == 'M') x *= 1048576, end++;
  else if (*end == 'G') x *= 1073741824, end++;
  if (*end == 'i') end++;
  if (*end == 'B') end++;
  if (*end || !(x >= 0 && x < 9e18)) return false;
  *out = (uint64_t)x;
  return true;
}

static bool is_int_in(const char *s, long long least, long long most) {
  char *end;
  errno = 0;
  long long v = strtoll(s, &end, 10);
  return *s && !*end && !errno && v >= least && v <= most;
}

static bool is_real(const char *s) {
  char *end;
  double x = strtod(s, &end);
  return *s && !*end && isfinite(x) && x >= 0;
}

static bool is_choice(const char *values, const char *s) {
  size_t n = strlen(s);
  for (const char *p = values; *p; p += strcspn(p, "|"), p += *p == '|')
    if (strcspn(p, "|") == n && !memcmp(p, s, n)) return true;
  return false;
}

/* NULL when value is fine, else what is expected. */
static const char *expected(const zn_optdef *d, const char *value) {
  uint64_t bytes;
  switch (d->kind) {
    case ZN_OK_INT: return is_int_in(value, 0, INT64_MAX) ? NULL : "a whole number";
    case ZN_OK_COUNT:
      if (is_int_in(value, 1, INT32_MAX)) return NULL;
      return is_int_in(value, 1, INT64_MAX) ? "a whole number below 2^31" : "a whole number above 0";
    case ZN_OK_THREADS: return is_int_in(value, 1, ZN_POOL_MOST) ? NULL : "a number of threads, 1 to " TEXT(ZN_POOL_MOST);
    case ZN_OK_REAL: return is_real(value) ? NULL : "a number that is not negative";
    case ZN_OK_SPAN: return is_real(value) && strtod(value, NULL) > 0 ? NULL : "a number above 0";
    case ZN_OK_BYTES: return zn_parse_bytes(value, &bytes) ? NULL : "a size such as 65536, 64K or 2M";
    case ZN_OK_CHOICE: return is_choice(d->values, value) ? NULL : d->values;
    case ZN_OK_LIST: {
      const char *eq = strchr(value, '=');
      return eq && eq != value && eq[1] ? NULL : d->arg;
    }
    case ZN_OK_LETTERS:
      if (d->spelling[1] == 'O')
        return value[0] >= '0' && value[0] <= '3' && !value[1] ? NULL : "-O0, -O1, -O2 or -O3";
      return *value ? NULL : "letters of passes";
    case ZN_OK_STR: return *value ? NULL : "a value";
    default: return NULL;
  }
}

zn_status zn_opts_set(zn_ctx *c, zn_opts *o, zn_optid id, const char *value) {
  const zn_optdef *d = &zn_optdefs[id];
  if (!zn_opt_allowed(id, o->cmd)) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "option %s does not belong to `zenithc %s`", d->spelling,
            zn_cmddefs[o->cmd].name);
    zn_help(c, "`zenithc %s --help` lists its options", zn_cmddefs[o->cmd].name);
    return ZN_ERR_USAGE;
  }
  const char *want = expected(d, value);
  if (want)
    return zn_fail(c, ZN_ERR_USAGE, NULL, "option %s: '%s' is not accepted; expected %s", d->spelling,
                   value, want);
  ZN_PUSH(&c->perm, o->val[id].v, o->val[id].n, o->val[id].cap, value);
  return ZN_OK;
}

static zn_status unknown(zn_ctx *c, const zn_opts *o, const char *word) {
  const char *names[ZN_O_COUNT];
  uint32_t n = 0;
  for (unsigned i = 0; i < ZN_O_COUNT; i++)
    if (zn_opt_allowed((zn_optid)i, o->cmd)) names[n++] = zn_optdefs[i].spelling;
  char key[64];
  snprintf(key, sizeof key, "%.*s", (int)strcspn(word, "="), word);
  const char *near = zn_nearest(key, names, n);
  zn_fail(c, ZN_ERR_USAGE, NULL, "unknown option %s", key);
  if (near) zn_help(c, "did you mean %s?", near);
  else zn_help(c, "`zenithc %s --help` lists the options", zn_cmddefs[o->cmd].name);
  return ZN_ERR_USAGE;
}

/* -v, -o OUT, -oOUT, -O2, -dfg. Returns through *used whether the next word was the value. */
static zn_status parse_short(zn_ctx *c, zn_opts *o, const char *word, const char *next, bool *used) {
  if (!strcmp(word, "-h")) return zn_opts_set(c, o, ZN_O_help, "");
  if (!strcmp(word, "-V")) return zn_opts_set(c, o, ZN_O_version, "");
  zn_optid id = zn_opt_find(word + 1, 1);
  if (id == ZN_O_COUNT || zn_optdefs[id].spelling[1] == '-') return unknown(c, o, word);
  const zn_optdef *d = &zn_optdefs[id];
  if (d->kind == ZN_OK_FLAG) return word[2] ? unknown(c, o, word) : zn_opts_set(c, o, id, "");
  const char *value = word + 2;
  if (d->kind != ZN_OK_LETTERS) {
    if (*value == '=') value++;
    if (!*value && next) value = next, *used = true;
    if (!*value) return zn_fail(c, ZN_ERR_USAGE, NULL, "option %s needs a value: %s", d->spelling, d->arg);
  }
  return zn_opts_set(c, o, id, value);
}

static zn_status parse_long(zn_ctx *c, zn_opts *o, const char *word, const char *next, bool *used) {
  size_t n = strcspn(word + 2, "=");
  zn_optid id = zn_opt_find(word + 2, n);
  if (id == ZN_O_COUNT || zn_optdefs[id].spelling[1] != '-') return unknown(c, o, word);
  const zn_optdef *d = &zn_optdefs[id];
  const char *value = word[2 + n] == '=' ? word + 3 + n : NULL;
  if (d->kind == ZN_OK_FLAG) {
    if (value) return zn_fail(c, ZN_ERR_USAGE, NULL, "option %s takes no value", d->spelling);
    return zn_opts_set(c, o, id, "");
  }
  if (!value && next) value = next, *used = true;
  if (!value) return zn_fail(c, ZN_ERR_USAGE, NULL, "option %s needs a value: %s", d->spelling, d->arg);
  return zn_opts_set(c, o, id, value);
}

static zn_status read_config(zn_ctx *c, zn_opts *o) {
  const char *path = zn_opt_str(o, ZN_O_config);
  if (!path) return ZN_OK;
  const char *text;
  size_t n;
  ZN_TRY(zn_read_file(c, &c->perm, path, &text, &n));
  return zn_opts_yaml(c, o, path, text, n);
}

zn_status zn_opts_parse(zn_ctx *c, int argc, char *const *argv, zn_opts *out) {
  memset(out, 0, sizeof *out);
  int i = 1;
  out->cmd = ZN_CMD_compile;
  for (unsigned k = 0; k < ZN_CMD_COUNT && argc > 1; k++)
    if (!strcmp(argv[1], zn_cmddefs[k].name)) out->cmd = (zn_cmd)k, i = 2;
  bool only_args = false;
  for (; i < argc; i++) {
    const char *word = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
    bool used = false;
    if (only_args || word[0] != '-' || !word[1]) {
      ZN_PUSH(&c->perm, out->args, out->num_args, out->cap_args, word);
    } else if (!strcmp(word, "--")) {
      only_args = true;
    } else if (word[1] == '-') {
      ZN_TRY(parse_long(c, out, word, next, &used));
    } else {
      ZN_TRY(parse_short(c, out, word, next, &used));
    }
    i += used;
  }
  return read_config(c, out);
}

bool zn_opt_given(const zn_opts *o, zn_optid id) { return o->val[id].n > 0; }

const char *zn_opt_str(const zn_opts *o, zn_optid id) {
  if (o->val[id].n) return o->val[id].v[o->val[id].n - 1];
  const zn_optdef *d = &zn_optdefs[id];
  return *d->values ? d->values : NULL;
}

bool zn_opt_is(const zn_opts *o, zn_optid id, const char *value) {
  const char *s = zn_opt_str(o, id);
  size_t n = s ? strcspn(s, "|") : 0;
  return s && strlen(value) == n && !memcmp(s, value, n);
}

int64_t zn_opt_int(const zn_opts *o, zn_optid id, int64_t otherwise) {
  const char *s = zn_opt_str(o, id);
  return s ? strtoll(s, NULL, 10) : otherwise;
}

double zn_opt_real(const zn_opts *o, zn_optid id, double otherwise) {
  const char *s = zn_opt_str(o, id);
  return s ? strtod(s, NULL) : otherwise;
}

uint64_t zn_opt_bytes(const zn_opts *o, zn_optid id) {
  const char *s = zn_opt_str(o, id);
  uint64_t v = 0;
  return s && zn_parse_bytes(s, &v) ? v : 0;
}
