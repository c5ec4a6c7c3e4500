/* Rounds of both artifacts in turns, so that whatever else the machine does meets both. A candidate must look better in three
 * ways, since a busy machine can fake each of them: in the median of the ratios inside a round, in the best times of both
 * (which nothing can make too small), and in more rounds than chance gives. */
#include "zenithc/driver/trial.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/zenith_pool.h"

enum { MIN_ROUNDS = 11, MAX_ROUNDS = 201, WARMUP = 2, USUAL = 0, OTHER = 1 };
static const double seconds_of_rounds = 0.6;

typedef struct clock_of { /* time of one artifact's kernels in one run */
  const uint32_t *subject; /* by kernel: number of its subject, num: none */
  double *ns;              /* by subject, the whole run at the end */
  double start;
  zn_pool *pool;
} clock_of;

typedef struct side {
  zn_native_call call;
  clock_of clock;
  zn_host host;
  double *samples; /* [round][subject + 1] */
} side;

static void on_kernel(void *user, uint32_t k, int32_t begin) {
  clock_of *w = user;
  if (begin) w->start = zn_now();
  else w->ns[w->subject[k]] += (zn_now() - w->start) * 1e9;
}

static void on_parallel(void *user, zn_kernel kernel, void *const *bufs, const intptr_t *ints, intptr_t n) {
  const clock_of *w = user;
  if (w->pool) zn_pool_parallel_for(w->pool, kernel, bufs, ints, n);
  else kernel(bufs, ints, 0, n);
}

static uint32_t subject_of(const zn_trial *t, const char *signature) {
  for (uint32_t i = 0; signature && i < t->num; i++)
    if (!t->subjects[i].whole && !strcmp(t->subjects[i].signature, signature)) return i;
  return t->num;
}

static const uint32_t *subjects_of(const zn_trial *t, const zn_kmod *m) {
  uint32_t *out = ZN_ARRAY(&t->c->perm, uint32_t, m->num_funcs + 1), k = 0;
  for (uint32_t i = 0; i < m->num_funcs; i++)
    if (!m->funcs[i]->is_entry) out[k++] = subject_of(t, m->funcs[i]->signature);
  return out;
}

static zn_status open_side(const zn_trial *t, const zn_session *s, zn_pool *pool, side *out) {
  zn_arena *a = &t->c->perm;
  ZN_TRY(zn_native_prepare(t->c, s->exec, a, t->in, &out->call));
  out->clock = (clock_of){subjects_of(t, s->mod), ZN_ARRAY(a, double, t->num + 1), 0, pool};
  out->host = *out->call.host;
  out->host.user = &out->clock;
  out->host.parallel_for = on_parallel;
  out->host.profile = on_kernel;
  out->call.host = &out->host;
  out->samples = ZN_ARRAY(a, double, (size_t)MAX_ROUNDS * (t->num + 1));
  return ZN_OK;
}

static bool run_once(const zn_trial *t, side *s, double *out) {
  memset(s->clock.ns, 0, (t->num + 1) * sizeof *s->clock.ns);
  double t0 = zn_now();
  if (zn_native_invoke(&s->call) != ZN_RUN_OK) return false;
  s->clock.ns[t->num] = (zn_now() - t0) * 1e9;
  memcpy(out, s->clock.ns, (t->num + 1) * sizeof *out);
  return true;
}

/* ---- results ---- */

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

typedef struct outcome {
  double usual_ns, ratio, noise;
  uint32_t rounds;
} outcome;

static outcome judge(const zn_trial *t, const side *s, uint32_t rounds, uint32_t i) {
  double ratio[MAX_ROUNDS], usual[MAX_ROUNDS], best[2] = {INFINITY, INFINITY};
  uint32_t won = 0;
  for (uint32_t r = 0; r < rounds; r++) {
    double x = s[USUAL].samples[(size_t)r * (t->num + 1) + i], y = s[OTHER].samples[(size_t)r * (t->num + 1) + i];
    usual[r] = x;
    ratio[r] = x > 0 ? y / x : 1;
    won += y < x;
    if (x < best[USUAL]) best[USUAL] = x;
    if (y < best[OTHER]) best[OTHER] = y;
  }
  qsort(ratio, rounds, sizeof *ratio, ascending);
  qsort(usual, rounds, sizeof *usual, ascending);
  /* standard error of a median, from the quartiles of a normal distribution */
  double spread = (ratio[rounds * 3 / 4] - ratio[rounds / 4]) / 1.349;
  double noise = 1.2533 * spread / sqrt(rounds), median = ratio[rounds / 2];
  double of_best = best[USUAL] > 0 ? best[OTHER] / best[USUAL] : 1;
  if (of_best > median) median = of_best;
  if (won < rounds * 0.5 + 1.25 * sqrt(rounds) && median + noise < 1) noise = 1 - median; /* a coin might do as well */
  return (outcome){usual[rounds / 2], median, noise, rounds};
}

/* The self-check of builds is what promises results; this keeps what is plainly wrong out of the database. */
static bool same_results(const zn_native_call *x, const zn_native_call *y) {
  for (uint32_t i = 0; i < x->model->num_outputs; i++) {
    const zn_tensor *p = &x->out[i], *q = &y->out[i];
    if (p->bytes != q->bytes) return false;
    if (p->dtype != zn_dtypes[ZN_F32].onnx) continue;
    const float *u = p->u.data, *v = q->u.data;
    double most = 0;
    for (uint64_t k = 0; k < p->bytes / sizeof *u; k++)
      if (isfinite(u[k]) && fabs((double)u[k]) > most) most = fabs((double)u[k]);
    for (uint64_t k = 0; k < p->bytes / sizeof *u; k++)
      if (isfinite(u[k]) && !(fabs((double)u[k] - (double)v[k]) <= 1e-3 * most)) return false;
  }
  return true;
}

/* ---- the child ---- */

static bool find_value(void *user, const char *signature, const char *knob, int64_t *out) {
  const zn_trial *t = user;
  for (uint32_t i = 0; i < t->num; i++) {
    const zn_subject *s = &t->subjects[i];
    if (!s->trying || strcmp(s->signature, signature)) continue;
    for (uint32_t k = 0; k < s->num_knobs; k++)
      if (!strcmp(s->knob[k].name, knob)) {
        *out = s->value[k];
        return s->value[k] != s->knob[k].usual; /* the model's own may follow from other knobs, as in a build */
      }
  }
  return false;
}

static bool write_all(int fd, const void *p, size_t n) {
  const char *from = p;
  while (n) {
    ssize_t k = write(fd, from, n);
    if (k < 0 && errno == EINTR) continue;
    if (k <= 0) return false;
    from += k;
    n -= (size_t)k;
  }
  return true;
}

static bool measure(zn_trial *t, side *s, int fd) {
  uint32_t rounds = 0;
  double *scratch = ZN_ARRAY(&t->c->perm, double, t->num + 1), t0 = 0;
  for (uint32_t r = 0; r < WARMUP + MAX_ROUNDS; r++) {
    if (r == WARMUP) t0 = zn_now();
    if (rounds >= MIN_ROUNDS && zn_now() - t0 > seconds_of_rounds) break;
    for (int turn = 0; turn < 2; turn++) {
      int which = turn ^ (int)(r & 1);
      double *to = r < WARMUP ? scratch : s[which].samples + (size_t)rounds * (t->num + 1);
      if (!run_once(t, &s[which], to)) return false;
    }
    rounds += r >= WARMUP;
  }
  if (!same_results(&s[USUAL].call, &s[OTHER].call)) return false;
  for (uint32_t i = 0; i <= t->num; i++) {
    outcome o = judge(t, s, rounds, i);
    if (!write_all(fd, &o, sizeof o)) return false;
  }
  return true;
}

static bool child(zn_trial *t, int fd) {
  zn_session other = {0};
  zn_compiled k;
  zn_knobs knobs = {.find = find_value, .user = t};
  side s[2] = {0};
  t->c->verbosity = -1;
  t->co.knobs = &knobs;
  if (zn_compile(t->c, &t->co, &k) != ZN_OK) return false;
  if (zn_session_load(t->c, &k, t->co.target, t->co.opt_level, t->dir, &other) != ZN_OK) return false;
  zn_pool *pool = t->threads > 1 ? zn_pool_create(t->threads) : NULL;
  if (t->threads > 1 && !pool) return false;
  if (open_side(t, &t->usual, pool, &s[USUAL]) != ZN_OK || open_side(t, &other, pool, &s[OTHER]) != ZN_OK) return false;
  return measure(t, s, fd);
}

static void silent(void *user, zn_severity sev, const char *line) { (void)user, (void)sev, (void)line; }

/* ---- the parent ---- */

static bool read_outcomes(zn_trial *t, int fd, outcome *o) {
  size_t want = (t->num + 1) * sizeof *o, have = 0;
  while (have < want) {
    ssize_t n = read(fd, (char *)o + have, want - have);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    have += (size_t)n;
  }
  return have == want;
}

static void take(zn_trial *t, const outcome *o) {
  for (uint32_t i = 0; i < t->num; i++) {
    zn_subject *s = &t->subjects[i];
    const outcome *x = s->whole ? &o[t->num] : &o[i];
    s->usual_ns = x->usual_ns, s->ratio = x->ratio, s->noise = x->noise;
  }
  t->usual_ns = o[t->num].usual_ns, t->ratio = o[t->num].ratio, t->noise = o[t->num].noise;
  t->rounds = o[t->num].rounds;
}

bool zn_trial_run(zn_trial *t, unsigned limit) {
  int fd[2], status = 0;
  if (pipe(fd) != 0) return false;
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    zn_tmp_disown();
    close(fd[0]);
    alarm(limit); /* ends the process */
    t->c->sink = silent;
    bool ok = child(t, fd[1]);
    _exit(ok ? 0 : 1);
  }
  close(fd[1]);
  outcome *o = ZN_ARRAY(&t->c->tmp, outcome, t->num + 1);
  bool ok = pid > 0 && read_outcomes(t, fd[0], o);
  close(fd[0]);
  while (pid > 0 && waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) break;
  ok = ok && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (ok) take(t, o);
  zn_arena_reset(&t->c->tmp);
  return ok;
}
