/* The SQLite side of tuning. A rollback journal, not a write-ahead log: that would leave files beside the database, and a
 * database in a read-only folder could not be opened. */
#include "zenithc/tune/tunedb.h"

#include <errno.h>
#include <inttypes.h>
#include <sqlite3.h>

enum { WAIT_MS = 60000, WITHOUT_THREADS = 1, SCHEMA = 2, MAX_LISTED = 16 };

struct zn_tunedb {
  sqlite3 *h;
  const char *path;
  bool old; /* schema 1: without threads */
};

static const char schema[] =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE IF NOT EXISTS trial (signature TEXT NOT NULL, cpu TEXT NOT NULL, threads INTEGER NOT NULL, knobs TEXT NOT NULL,"
    " ratio REAL NOT NULL, noise REAL NOT NULL, usual_ns REAL NOT NULL, rounds INTEGER NOT NULL,"
    " PRIMARY KEY (signature, cpu, threads, knobs)) WITHOUT ROWID;"
    "PRAGMA user_version = 2;"
    "COMMIT;";

bool zn_tune_wins(const zn_tune_trial *t) { return t->ratio + 2 * t->noise < 0.98; }

static zn_status failed(zn_ctx *c, const zn_tunedb *db, const char *what) {
  return zn_fail(c, ZN_ERR_IO, db->path, "tuning database: %s: %s", what, sqlite3_errmsg(db->h));
}

static int64_t version_of(zn_tunedb *db) {
  sqlite3_stmt *s;
  if (sqlite3_prepare_v2(db->h, "PRAGMA user_version", -1, &s, NULL) != SQLITE_OK) return -1;
  int64_t v = sqlite3_step(s) == SQLITE_ROW ? sqlite3_column_int64(s, 0) : -1;
  sqlite3_finalize(s);
  return v;
}

static zn_status prepare_file(zn_ctx *c, zn_tunedb *db, bool write) {
  int64_t v = version_of(db);
  if (v < 0) return failed(c, db, "cannot be read");
  if (v == 0 && write) {
    if (sqlite3_exec(db->h, schema, NULL, NULL, NULL) != SQLITE_OK) return failed(c, db, "cannot be written");
    return ZN_OK;
  }
  db->old = v == WITHOUT_THREADS;
  if (v == SCHEMA || (db->old && !write)) return ZN_OK;
  if (db->old) {
    zn_fail(c, ZN_ERR_USAGE, db->path, "was made by an earlier zenithc, which did not note the number of threads: builds can use "
            "it, but nothing can be added");
    zn_help(c, "give another file to --tune");
    return ZN_ERR_USAGE;
  }
  zn_fail(c, ZN_ERR_USAGE, db->path, "is not a tuning database of this version of zenithc (schema %" PRId64 ")", v);
  zn_help(c, "make one with `zenithc tune MODEL --tune FILE`");
  return ZN_ERR_USAGE;
}

zn_status zn_tunedb_open(zn_ctx *c, const char *path, bool write, zn_tunedb **out) {
  zn_tunedb *db = ZN_NEW(&c->perm, zn_tunedb);
  db->path = zn_arena_strdup(&c->perm, path);
  int flags = write ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
  zn_status st = ZN_OK;
  if (sqlite3_open_v2(path, &db->h, flags, NULL) != SQLITE_OK) {
    const int e = db->h ? sqlite3_system_errno(db->h) : ENOMEM;
    st = zn_fail(c, ZN_ERR_USAGE, path, "tuning database: cannot be opened: %s", e ? strerror(e) : sqlite3_errmsg(db->h));
    if (!write) zn_help(c, "make one with `zenithc tune MODEL --tune FILE`");
  }
  if (st == ZN_OK) {
    sqlite3_busy_timeout(db->h, WAIT_MS);
    st = prepare_file(c, db, write);
  }
  if (st != ZN_OK) zn_tunedb_close(db);
  else *out = db;
  return st;
}

void zn_tunedb_close(zn_tunedb *db) {
  if (db) sqlite3_close(db->h);
  if (db) db->h = NULL;
}

static void bind_key(sqlite3_stmt *s, const zn_tune_trial *t) {
  sqlite3_bind_text(s, 1, t->signature, -1, SQLITE_STATIC);
  sqlite3_bind_text(s, 2, t->cpu, -1, SQLITE_STATIC);
  sqlite3_bind_int64(s, 3, t->threads);
  sqlite3_bind_text(s, 4, t->knobs, -1, SQLITE_STATIC);
}

static bool put_one(sqlite3_stmt *s, const zn_tune_trial *t) {
  sqlite3_reset(s);
  bind_key(s, t);
  sqlite3_bind_double(s, 5, t->ratio);
  sqlite3_bind_double(s, 6, t->noise);
  sqlite3_bind_double(s, 7, t->usual_ns);
  sqlite3_bind_int64(s, 8, t->rounds);
  return sqlite3_step(s) == SQLITE_DONE;
}

zn_status zn_tunedb_put(zn_ctx *c, zn_tunedb *db, const zn_tune_trial *t, uint32_t n) {
  sqlite3_stmt *s = NULL;
  /* IMMEDIATE takes the lock at once: two writers that both read first could not both go on */
  bool ok = sqlite3_exec(db->h, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK;
  if (!ok) return failed(c, db, "cannot be written");
  ok = sqlite3_prepare_v2(db->h, "INSERT OR REPLACE INTO trial VALUES (?, ?, ?, ?, ?, ?, ?, ?)", -1, &s, NULL) == SQLITE_OK;
  for (uint32_t i = 0; i < n && ok; i++) ok = put_one(s, &t[i]);
  zn_status st = ok ? ZN_OK : failed(c, db, "cannot be written");
  sqlite3_finalize(s);
  if (sqlite3_exec(db->h, ok ? "COMMIT" : "ROLLBACK", NULL, NULL, NULL) != SQLITE_OK && ok)
    st = failed(c, db, "cannot be written");
  return st;
}

bool zn_tunedb_get(zn_tunedb *db, zn_tune_trial *t) {
  static const char query[] =
      "SELECT ratio, noise, usual_ns, rounds FROM trial WHERE signature = ? AND cpu = ? AND threads = ? AND knobs = ?";
  sqlite3_stmt *s;
  if (sqlite3_prepare_v2(db->h, query, -1, &s, NULL) != SQLITE_OK) return false;
  bind_key(s, t);
  bool found = sqlite3_step(s) == SQLITE_ROW;
  if (found) {
    t->ratio = sqlite3_column_double(s, 0);
    t->noise = sqlite3_column_double(s, 1);
    t->usual_ns = sqlite3_column_double(s, 2);
    t->rounds = (uint32_t)sqlite3_column_int64(s, 3);
  }
  sqlite3_finalize(s);
  return found;
}

static const char *text_of(sqlite3_stmt *s, int column, zn_arena *a) {
  const unsigned char *p = sqlite3_column_text(s, column);
  return zn_arena_strdup(a, p ? (const char *)p : "");
}

/* The CPU model to build for: `wanted`, or the only one of the file; *out NULL when the file holds nothing. */
static zn_status choose_cpu(zn_ctx *c, zn_tunedb *db, const char *wanted, const char **out) {
  sqlite3_stmt *s;
  const char *names[MAX_LISTED];
  uint32_t n = 0;
  if (sqlite3_prepare_v2(db->h, "SELECT DISTINCT cpu FROM trial ORDER BY cpu", -1, &s, NULL) != SQLITE_OK)
    return failed(c, db, "cannot be read");
  *out = NULL;
  while (n < MAX_LISTED && sqlite3_step(s) == SQLITE_ROW) {
    names[n++] = text_of(s, 0, &c->perm);
    if (wanted && !strcmp(wanted, names[n - 1])) *out = wanted;
  }
  sqlite3_finalize(s);
  if (n == 1 && !wanted) *out = names[0];
  if (*out || !n) return ZN_OK;
  if (wanted) zn_fail(c, ZN_ERR_USAGE, db->path, "nothing was measured on '%s'", wanted);
  else zn_fail(c, ZN_ERR_USAGE, db->path, "the tuning database knows several CPU models: which one is the artifact for?");
  for (uint32_t i = 0; i < n; i++) zn_help(c, "--tune-cpu='%s'", names[i]);
  return ZN_ERR_USAGE;
}

/* With how many threads was something measured on this model? Ascending; 0 where the file does not say. */
static zn_status threads_of(zn_ctx *c, zn_tunedb *db, const char *cpu, uint32_t *out, uint32_t *out_n) {
  const char *query = db->old ? "SELECT DISTINCT 0 FROM trial WHERE cpu = ?"
                              : "SELECT DISTINCT threads FROM trial WHERE cpu = ? ORDER BY threads";
  sqlite3_stmt *s;
  *out_n = 0;
  if (sqlite3_prepare_v2(db->h, query, -1, &s, NULL) != SQLITE_OK) return failed(c, db, "cannot be read");
  sqlite3_bind_text(s, 1, cpu, -1, SQLITE_STATIC);
  while (*out_n < MAX_LISTED && sqlite3_step(s) == SQLITE_ROW) out[(*out_n)++] = (uint32_t)sqlite3_column_int64(s, 0);
  sqlite3_finalize(s);
  return ZN_OK;
}

static zn_status choose_threads(zn_ctx *c, zn_tunedb *db, const char *cpu, const zn_tune_use *use, uint32_t *out) {
  uint32_t known[MAX_LISTED], n;
  ZN_TRY(threads_of(c, db, cpu, known, &n));
  *out = use->threads;
  for (uint32_t i = 0; i < n; i++) {
    if (use->threads == known[i] && use->threads) return ZN_OK;
    if (!use->threads && (n == 1 || use->likely == known[i])) {
      *out = known[i];
      return ZN_OK;
    }
  }
  if (n == 1 && !known[0]) {
    zn_fail(c, ZN_ERR_USAGE, db->path, "the tuning database does not say with how many threads it was made");
    zn_help(c, "leave --tune-threads away, or measure again: `zenithc tune MODEL --tune FILE --threads %u`", use->threads);
    return ZN_ERR_USAGE;
  }
  if (use->threads)
    zn_fail(c, ZN_ERR_USAGE, db->path, "nothing was measured with %u threads on '%s'", use->threads, cpu);
  else
    zn_fail(c, ZN_ERR_USAGE, db->path, "the tuning database has several numbers of threads: which one is the artifact for?");
  for (uint32_t i = 0; i < n; i++) zn_help(c, "--tune-threads=%u", known[i]);
  return ZN_ERR_USAGE;
}

zn_status zn_tunedb_load(zn_ctx *c, zn_tunedb *db, const zn_tune_use *use, zn_tune_table *out) {
  const char *query =
      db->old ? "SELECT signature, knobs, ratio, noise FROM trial WHERE cpu = ? ORDER BY signature, ratio, knobs"
              : "SELECT signature, knobs, ratio, noise FROM trial WHERE cpu = ? AND threads = ? ORDER BY signature, ratio, knobs";
  const char *cpu;
  sqlite3_stmt *s;
  uint32_t cap = 0, threads;
  *out = (zn_tune_table){0};
  ZN_TRY(choose_cpu(c, db, use->cpu, &cpu));
  if (!cpu) return ZN_OK;
  ZN_TRY(choose_threads(c, db, cpu, use, &threads));
  if (sqlite3_prepare_v2(db->h, query, -1, &s, NULL) != SQLITE_OK) return failed(c, db, "cannot be read");
  sqlite3_bind_text(s, 1, cpu, -1, SQLITE_STATIC);
  if (!db->old) sqlite3_bind_int64(s, 2, threads);
  int rc;
  while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
    zn_tune_trial t = {.ratio = sqlite3_column_double(s, 2), .noise = sqlite3_column_double(s, 3)};
    const char *signature = (const char *)sqlite3_column_text(s, 0);
    if (!signature || !zn_tune_wins(&t)) continue;
    if (out->num && !strcmp(out->rows[out->num - 1].signature, signature)) continue; /* a faster one came before */
    zn_tune_row row = {zn_arena_strdup(&c->perm, signature), text_of(s, 1, &c->perm)};
    ZN_PUSH(&c->perm, out->rows, out->num, cap, row);
  }
  sqlite3_finalize(s);
  return rc == SQLITE_DONE ? ZN_OK : failed(c, db, "cannot be read");
}

bool zn_tune_value(const char *knobs, const char *knob, int64_t *out) {
  size_t n = strlen(knob);
  for (const char *p = knobs; p; p = strchr(p, ' '), p = p ? p + 1 : NULL) {
    if (strncmp(p, knob, n) || p[n] != '=') continue;
    *out = strtoll(p + n + 1, NULL, 10);
    return true;
  }
  return false;
}

/* Signatures are in SQLite's order, which is that of bytes. */
bool zn_tune_find(void *user, const char *signature, const char *knob, int64_t *out) {
  const zn_tune_table *t = user;
  uint32_t lo = 0, hi = t->num;
  while (lo < hi) {
    uint32_t mid = lo + (hi - lo) / 2;
    int order = strcmp(signature, t->rows[mid].signature);
    if (order == 0) return zn_tune_value(t->rows[mid].knobs, knob, out);
    if (order < 0) hi = mid;
    else lo = mid + 1;
  }
  return false;
}
