/* The tuning database: what was measured about the knobs of kernels (zenithc/graph/knob.h), by signature, CPU model and number
 * of threads. One SQLite file without companions, to be shipped beside the model; any number of processes may write at once.
 * Builds read it whole, before they start: the same file gives the same answers. Files of schema 1 do not say with how many
 * threads they were made: they are read as before, and not written. */
#ifndef ZN_TUNEDB_H
#define ZN_TUNEDB_H
#include "zenithc/graph/knob.h"

typedef struct zn_tunedb zn_tunedb;

typedef struct zn_tune_trial {
  const char *signature, *cpu;
  uint32_t threads;   /* that shared the kernels' work */
  const char *knobs;  /* "fetch=0 tile=4098": those that differ from the model's choice, by name */
  double ratio;       /* time with these knobs / with the model's choice; huge: it does not work */
  double noise;       /* what ratio may be wrong by */
  double usual_ns;    /* time with the model's choice, median */
  uint32_t rounds;
} zn_tune_trial;

/* A candidate wins when it is faster by more than its noise and by more than is worth a row. */
bool zn_tune_wins(const zn_tune_trial *t);

/* write: creates the file when there is none. Both wait for other writers, a minute at most. */
zn_status zn_tunedb_open(zn_ctx *c, const char *path, bool write, zn_tunedb **out);
void zn_tunedb_close(zn_tunedb *db);
/* All of them or none; a later measurement of the same knobs replaces an earlier one. */
zn_status zn_tunedb_put(zn_ctx *c, zn_tunedb *db, const zn_tune_trial *t, uint32_t n);
/* What was measured for these four earlier; false: nothing. Fills the numbers of *t. */
bool zn_tunedb_get(zn_tunedb *db, zn_tune_trial *t);

typedef struct zn_tune_row {
  const char *signature, *knobs;
} zn_tune_row;
typedef struct zn_tune_table { /* the winner for each signature, sorted */
  zn_tune_row *rows;
  uint32_t num;
} zn_tune_table;
typedef struct zn_tune_use { /* what the artifact is for */
  const char *cpu;  /* NULL: the only CPU model in the file, an error that lists them when there are several */
  uint32_t threads; /* 0: the only number in the file for that model, else `likely`, else such an error */
  uint32_t likely;  /* threads of the run that follows; 0: unknown */
} zn_tune_use;
/* The winners. An error when nothing was measured with the threads asked for. */
zn_status zn_tunedb_load(zn_ctx *c, zn_tunedb *db, const zn_tune_use *use, zn_tune_table *out);
/* For zn_knobs.find, user a zn_tune_table. */
bool zn_tune_find(void *user, const char *signature, const char *knob, int64_t *out);
/* Value of one knob in such a text. */
bool zn_tune_value(const char *knobs, const char *knob, int64_t *out);
#endif
