/* zenithc tune: searches better answers to the questions that schedules ask. Every trial is one build of the whole model in
 * which each kind of kernel tries another choice at the same time, so a trial says something about all of them; one knob of
 * a kernel after the other is turned, on top of the best so far. What a trial found is in the database before the next one
 * begins: an interruption loses nothing, and a later run goes on where this one stopped. */
#include <inttypes.h>
#include <math.h>
#include <unistd.h>

#include "zenithc/driver/trial.h"

enum { MAX_SUBJECTS = 4096, MAX_AGAIN = 6 };
static const double worth_trying = 0.002; /* of the whole run's time */

typedef struct tuner {
  zn_trial t;
  uint32_t cap;
  zn_tunedb *db;
  const char *cpu;
  double start, budget, longest; /* seconds; of a trial */
  uint32_t trials, improved;
  bool progress;
} tuner;

/* ---- the questions ---- */

static zn_subject *subject_named(tuner *u, const char *signature) {
  for (uint32_t i = 0; i < u->t.num; i++)
    if (!strcmp(u->t.subjects[i].signature, signature)) return &u->t.subjects[i];
  if (u->t.num == MAX_SUBJECTS) return NULL;
  zn_subject s = {.signature = zn_arena_strdup(&u->t.c->perm, signature), .best_ratio = 1,
                  .whole = strstr(signature, " layout ") != NULL};
  ZN_PUSH(&u->t.c->perm, u->t.subjects, u->t.num, u->cap, s);
  return &u->t.subjects[u->t.num - 1];
}

static void on_question(void *user, const char *signature, const char *knob, int64_t usual, const int64_t *choices,
                        uint32_t n) {
  zn_subject *s = subject_named(user, signature);
  if (!s || s->num_knobs == ZN_TUNE_MAX_KNOBS) return;
  for (uint32_t k = 0; k < s->num_knobs; k++)
    if (!strcmp(s->knob[k].name, knob)) return;
  struct zn_subject_knob *q = &s->knob[s->num_knobs];
  *q = (struct zn_subject_knob){.name = knob, .usual = usual};
  for (uint32_t i = 0; i < n && i < ZN_KNOB_MAX_CHOICES; i++) q->choices[q->n++] = choices[i];
  s->best[s->num_knobs++] = usual;
}

/* "fetch=0 tile=4098", by name. */
static const char *knobs_text(zn_arena *a, const zn_subject *s, const int64_t *value) {
  uint32_t order[ZN_TUNE_MAX_KNOBS], n = 0;
  for (uint32_t k = 0; k < s->num_knobs; k++) {
    if (value[k] == s->knob[k].usual) continue;
    uint32_t at = n++;
    for (; at && strcmp(s->knob[order[at - 1]].name, s->knob[k].name) > 0; at--) order[at] = order[at - 1];
    order[at] = k;
  }
  zn_text t;
  zn_text_init(&t, a);
  zn_text_puts(&t, "");
  for (uint32_t i = 0; i < n; i++)
    zn_text_printf(&t, "%s%s=%" PRId64, i ? " " : "", s->knob[order[i]].name, value[order[i]]);
  return t.s ? t.s : "";
}

/* ---- the search ---- */

static void learn(tuner *u, zn_subject *s, const zn_tune_trial *r) {
  bool wins = zn_tune_wins(r) && r->ratio + r->noise < s->best_ratio;
  if (!wins) return;
  u->improved += s->best_ratio >= 1;
  s->best_ratio = r->ratio;
  memcpy(s->best, s->value, sizeof s->best);
}

/* The next choice of s that nobody measured yet becomes its trial; false: there is none. */
static bool advance(tuner *u, zn_subject *s) {
  for (; s->at_knob < s->num_knobs; s->at_knob++, s->at_choice = 0)
    while (s->at_choice < s->knob[s->at_knob].n) {
      int64_t v = s->knob[s->at_knob].choices[s->at_choice++];
      memcpy(s->value, s->best, sizeof s->value);
      s->value[s->at_knob] = v;
      zn_tune_trial r = {s->signature, u->cpu, u->t.threads, knobs_text(&u->t.c->tmp, s, s->value), 0, 0, 0, 0};
      if (v == s->best[s->at_knob] || !*r.knobs) continue;
      if (!zn_tunedb_get(u->db, &r)) return true;
      learn(u, s, &r);
    }
  s->done = true;
  return false;
}

/* A trial of what `trying` says; when it fails the half to blame is found by halves. false: the time is up. */
static zn_status try_all(tuner *u, bool *out_stored);

static zn_status store(tuner *u, bool failed) {
  zn_tune_trial *rows = ZN_ARRAY(&u->t.c->perm, zn_tune_trial, u->t.num);
  uint32_t n = 0;
  for (uint32_t i = 0; i < u->t.num; i++) {
    zn_subject *s = &u->t.subjects[i];
    if (!s->trying) continue;
    zn_tune_trial r = {s->signature, u->cpu, u->t.threads, knobs_text(&u->t.c->perm, s, s->value),
                       failed ? 1e9 : s->ratio, failed ? 0 : s->noise, s->usual_ns, u->t.rounds};
    rows[n++] = r;
    if (!failed && s->usual_ns < worth_trying * u->t.usual_ns) s->done = true;
    learn(u, s, &r);
  }
  return n ? zn_tunedb_put(u->t.c, u->db, rows, n) : ZN_OK;
}

static zn_status try_half(tuner *u, const bool *all, uint32_t from, uint32_t to) {
  bool stored;
  for (uint32_t i = 0, k = 0; i < u->t.num; i++) {
    u->t.subjects[i].trying = all[i] && k >= from && k < to;
    k += all[i];
  }
  return try_all(u, &stored);
}

static zn_status try_all(tuner *u, bool *out_stored) {
  uint32_t n = 0;
  bool *all = ZN_ARRAY(&u->t.c->perm, bool, u->t.num + 1);
  for (uint32_t i = 0; i < u->t.num; i++) n += all[i] = u->t.subjects[i].trying;
  double t0 = zn_now();
  bool ok = zn_trial_run(&u->t, (unsigned)(60 + u->budget));
  if (zn_now() - t0 > u->longest) u->longest = zn_now() - t0;
  u->trials++;
  *out_stored = true;
  if (ok || n < 2) return store(u, !ok);
  ZN_TRY(try_half(u, all, 0, n / 2));
  return try_half(u, all, n / 2, n);
}

static bool time_left(const tuner *u) { return zn_now() - u->start + u->longest * 0.5 < u->budget; }

static void show(const tuner *u) {
  if (!u->progress) return;
  fprintf(stderr, "\rtune: %3.0f s of %.0f s, %u trials, %u of %u kinds of kernels improved ", zn_now() - u->start,
          u->budget, u->trials, u->improved, u->t.num);
  fflush(stderr);
}

/* Choices inside a kernel, all kernels at once; then layouts, one after the other. */
static zn_status search(tuner *u) {
  for (int whole = 0; whole < 2; whole++)
    for (bool more = true; more && time_left(u);) {
      uint32_t n = 0;
      bool stored;
      for (uint32_t i = 0; i < u->t.num; i++) {
        zn_subject *s = &u->t.subjects[i];
        s->trying = s->whole == whole && !s->done && !(whole && n) && advance(u, s);
        n += s->trying;
      }
      more = n > 0;
      if (more) ZN_TRY(try_all(u, &stored));
      show(u);
    }
  return ZN_OK;
}

/* ---- before and after ---- */

static zn_status open_usual(tuner *u) {
  zn_ctx *c = u->t.c;
  zn_compiled k;
  const char *dir;
  zn_knobs knobs = {.asked = on_question, .user = u};
  zn_compile_opts co = u->t.co;
  co.knobs = &knobs;
  ZN_TRY(zn_compile(c, &co, &k));
  ZN_TRY(zn_tmp_make(c, NULL, &dir));
  ZN_TRY(zn_tmp_make(c, NULL, &u->t.dir));
  ZN_TRY(zn_session_load(c, &k, co.target, co.opt_level, dir, &u->t.usual));
  if (!zn_session_is_native(&u->t.usual))
    return zn_fail(c, ZN_ERR_USAGE, NULL, "target %s is not for timing", co.target->name);
  return zn_inputs_make(c, u->t.o, &c->perm, u->t.usual.in, u->t.usual.num_in, u->t.usual.graph,
                        (uint64_t)zn_opt_int(u->t.o, ZN_O_random, 0), 1, &u->t.in);
}

static void print_winners(tuner *u) {
  for (uint32_t i = 0; i < u->t.num; i++) {
    const zn_subject *s = &u->t.subjects[i];
    if (s->best_ratio >= 1) continue;
    printf("%8.4f ms  x%.3f  %-24s  %s\n", s->usual_ns * 1e-6, s->best_ratio, knobs_text(&u->t.c->tmp, s, s->best),
           s->signature);
  }
}

static uint32_t try_winners(tuner *u) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < u->t.num; i++) {
    zn_subject *s = &u->t.subjects[i];
    s->trying = s->best_ratio < 1;
    memcpy(s->value, s->best, sizeof s->value);
    n += s->trying;
  }
  return n;
}

/* Whom a build with the database takes now. */
static zn_status read_winners(tuner *u) {
  zn_ctx *c = u->t.c;
  zn_tune_table winners;
  const zn_tune_use use = {.cpu = u->cpu, .threads = u->t.threads};
  ZN_TRY(zn_tunedb_load(c, u->db, &use, &winners));
  for (uint32_t i = 0; i < u->t.num; i++) {
    zn_subject *s = &u->t.subjects[i];
    for (uint32_t k = 0; k < s->num_knobs; k++)
      if (!zn_tune_find(&winners, s->signature, s->knob[k].name, &s->best[k])) s->best[k] = s->knob[k].usual;
    zn_tune_trial r = {s->signature, u->cpu, u->t.threads, knobs_text(&c->perm, s, s->best), 0, 0, 0, 0};
    s->best_ratio = *r.knobs && zn_tunedb_get(u->db, &r) && zn_tune_wins(&r) ? r.ratio : 1;
  }
  return ZN_OK;
}

/* One trial of all winners together; *out_n: how many of those that were not sure yet were measured. */
static zn_status try_again(tuner *u, uint32_t *out_n) {
  zn_arena *a = &u->t.c->perm;
  zn_tune_trial *rows = ZN_ARRAY(a, zn_tune_trial, u->t.num);
  uint32_t n = 0, unsure = 0;
  *out_n = 0;
  try_winners(u);
  for (uint32_t i = 0; i < u->t.num; i++) {
    zn_subject *s = &u->t.subjects[i];
    if (s->sure && strcmp(s->sure, knobs_text(a, s, s->value))) s->sure = NULL;
    unsure += s->trying && !s->whole && !s->sure;
  }
  if (!unsure || !zn_trial_run(&u->t, (unsigned)(60 + u->budget))) return ZN_OK;
  for (uint32_t i = 0; i < u->t.num; i++) {
    zn_subject *s = &u->t.subjects[i];
    if (!s->trying || s->whole || s->sure) continue;
    zn_tune_trial r = {s->signature, u->cpu, u->t.threads, knobs_text(a, s, s->value), s->ratio, s->noise, s->usual_ns,
                       u->t.rounds};
    s->sure = r.knobs;
    if (!zn_tune_wins(&r) || s->ratio > s->best_ratio) rows[n++] = r;
  }
  *out_n = unsure;
  return n ? zn_tunedb_put(u->t.c, u->db, rows, n) : ZN_OK;
}

/* The best of many candidates is often the luckiest: who won must win again, all together now, and keeps the worse of both
 * results. Who was second takes the place of one that lost, and is asked likewise. Layouts are not asked again: the others'
 * gains would count for them. */
static zn_status confirm(tuner *u) {
  if (!u->improved) return ZN_OK;
  ZN_TRY(read_winners(u));
  for (uint32_t times = 0, n = 1; times < MAX_AGAIN && n; times++) {
    ZN_TRY(try_again(u, &n));
    ZN_TRY(read_winners(u));
  }
  return ZN_OK;
}

/* All that won together, against the usual artifact. */
static void compare_whole(tuner *u) {
  uint32_t n = try_winners(u);
  print_winners(u);
  printf("%u trials, %u of %u kinds of kernels improved with %u thread%s", u->trials, n, u->t.num, u->t.threads,
         u->t.threads == 1 ? "" : "s");
  if (n && zn_trial_run(&u->t, (unsigned)(60 + u->budget)))
    printf("; a run takes %.4f ms instead of %.4f ms (x%.3f, noise %.3f)", u->t.usual_ns * u->t.ratio * 1e-6,
           u->t.usual_ns * 1e-6, u->t.ratio, u->t.noise);
  putchar('\n');
}

static zn_status read_budget(zn_ctx *c, const char *s, double *out) {
  char *end;
  *out = strtod(s, &end);
  if (!strcmp(end, "m")) *out *= 60;
  else if (!strcmp(end, "h")) *out *= 3600;
  else if (*end && strcmp(end, "s")) *out = 0;
  if (*out > 0 && *out < 1e7) return ZN_OK;
  zn_fail(c, ZN_ERR_USAGE, NULL, "--budget=%s is not a time above 0", s);
  zn_help(c, "seconds, or with a unit: 90s, 10m, 1h; at most 2777h");
  return ZN_ERR_USAGE;
}

static zn_status prepare(tuner *u, const char *model) {
  zn_ctx *c = u->t.c;
  const zn_opts *o = u->t.o;
  const char *path = zn_opt_str(o, ZN_O_tune);
  zn_caps machine;
  if (!path) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "where should the measurements go?");
    zn_help(c, "give a file, which is made when there is none: --tune model.tune");
    return ZN_ERR_USAGE;
  }
  ZN_TRY(read_budget(c, zn_opt_str(o, ZN_O_budget), &u->budget));
  ZN_TRY(zn_opts_compile(c, o, model, &u->t.co));
  if (u->t.co.opt_level < 2) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "builds at -O%d ask no tuning database", u->t.co.opt_level);
    zn_help(c, "tune for -O2 (the default) or -O3");
    return ZN_ERR_USAGE;
  }
  if (u->t.co.arch && strchr(u->t.co.arch, ','))
    return zn_fail(c, ZN_ERR_USAGE, NULL, "--arch=%s: tune for one of them after the other", u->t.co.arch);
  ZN_TRY(zn_target_find("cpu")->caps(c, "native", &machine));
  u->cpu = machine.cpu;
  int64_t threads = zn_opt_int(o, ZN_O_threads, 1);
  u->t.threads = threads < 1 ? 1 : (unsigned)threads;
  return zn_tunedb_open(c, path, true, &u->db);
}

int zn_cmd_tune(zn_ctx *c, const zn_opts *o) {
  tuner u = {.t = {.c = c, .o = o}, .start = zn_now(), .progress = isatty(2) && !zn_opt_given(o, ZN_O_quiet)};
  if (o->num_args != 1) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "expected one model, got %u", o->num_args);
    return 2;
  }
  c->file = o->args[0];
  zn_status st = prepare(&u, o->args[0]);
  if (st == ZN_OK) st = open_usual(&u);
  if (st == ZN_OK) st = search(&u);
  if (st == ZN_OK) st = confirm(&u);
  if (u.progress) fputs("\r\033[K", stderr);
  if (st == ZN_OK) compare_whole(&u);
  if (u.t.usual.exec) zn_session_close(&u.t.usual);
  zn_tunedb_close(u.db);
  zn_tmp_remove();
  return zn_exit_code(st);
}
