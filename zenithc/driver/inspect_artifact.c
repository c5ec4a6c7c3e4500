/* zenithc inspect of a shared object: what its descriptor says. Nothing in it runs, so it may be for another processor of
 * this architecture. */
#include <cjson/cJSON.h>
#include <inttypes.h>

#include "targets/native.h"
#include "zenithc/driver/tools.h"

static const struct {
  uint32_t bit;
  const char *name;
} features[] = {{ZN_FEAT_SSE42, "sse4.2"},         {ZN_FEAT_AVX2, "avx2"},        {ZN_FEAT_FMA, "fma"},
                {ZN_FEAT_F16C, "f16c"},            {ZN_FEAT_BMI2, "bmi2"},        {ZN_FEAT_AVX512, "avx512"},
                {ZN_FEAT_AVXVNNI, "avxvnni"},      {ZN_FEAT_AVX512VNNI, "avx512vnni"},
                {ZN_FEAT_AVX512BF16, "avx512bf16"}, {ZN_FEAT_AMX, "amx-int8, amx-bf16"},
                {ZN_FEAT_DOTPROD, "dotprod"},      {ZN_FEAT_I8MM, "i8mm"}};
enum { NUM_FEATURES = sizeof features / sizeof *features };

static const char *io_text(zn_arena *a, const zn_io_desc *d) {
  zn_text t;
  zn_text_init(&t, a);
  zn_text_puts(&t, zn_dtypes[zn_dtype_from_onnx((int)(d->dtype & 0xff))].name);
  for (uint32_t i = 0; i < d->rank; i++) {
    zn_text_puts(&t, i ? "," : "[");
    if (d->shape[i] < 0 && *d->dim_names[i]) zn_text_puts(&t, d->dim_names[i]);
    else zn_text_printf(&t, "%" PRId64, d->shape[i]);
  }
  zn_text_puts(&t, d->rank ? "]" : "[]");
  return t.s;
}

static void print_io(zn_arena *a, const char *title, const zn_io_desc *d, uint32_t n) {
  printf("%s:\n", title);
  for (uint32_t i = 0; i < n; i++)
    printf("  %s: %s%s\n", d[i].name, ZN_KIND(d[i].dtype) ? "list of " : "", io_text(a, &d[i]));
}

static void print_model(zn_arena *a, const zn_model *m) {
  printf("model: %s (ABI %" PRIu32 ")\nmade by: %s\n", m->name, m->abi, m->provenance);
  print_io(a, "inputs", m->inputs, m->num_inputs);
  print_io(a, "outputs", m->outputs, m->num_outputs);
  if (m->workspace_bytes) printf("workspace: %" PRIu64 " bytes\n", m->workspace_bytes);
  else puts("workspace: none, or as plan says");
  printf("weights: %" PRIu64 " bytes\nkernels: %" PRIu32 "\nneeds:", m->weights_bytes, m->num_kernels);
  for (size_t i = 0; i < NUM_FEATURES; i++)
    if (m->features & features[i].bit) printf(" %s", features[i].name);
  puts(m->features ? "" : " nothing beyond the architecture");
}

static void add_io(cJSON *r, zn_arena *a, const char *key, const zn_io_desc *d, uint32_t n) {
  cJSON *list = cJSON_AddObjectToObject(r, key);
  for (uint32_t i = 0; i < n; i++) cJSON_AddStringToObject(list, d[i].name, io_text(a, &d[i]));
}

static void print_json(zn_arena *a, const zn_model *m) {
  cJSON *r = cJSON_CreateObject();
  cJSON_AddStringToObject(r, "name", m->name);
  cJSON_AddStringToObject(r, "provenance", m->provenance);
  add_io(r, a, "inputs", m->inputs, m->num_inputs);
  add_io(r, a, "outputs", m->outputs, m->num_outputs);
  cJSON_AddNumberToObject(r, "workspace_bytes", (double)m->workspace_bytes);
  cJSON_AddNumberToObject(r, "weights_bytes", (double)m->weights_bytes);
  cJSON *list = cJSON_AddArrayToObject(r, "features");
  for (size_t i = 0; i < NUM_FEATURES; i++)
    if (m->features & features[i].bit) cJSON_AddItemToArray(list, cJSON_CreateString(features[i].name));
  list = cJSON_AddArrayToObject(r, "kernels");
  for (uint32_t i = 0; i < m->num_kernels; i++) cJSON_AddItemToArray(list, cJSON_CreateString(m->kernel_names[i]));
  char *text = cJSON_Print(r);
  if (text) puts(text);
  cJSON_free(text);
  cJSON_Delete(r);
}

zn_status zn_inspect_artifact(zn_ctx *c, const char *path, bool json) {
  zn_exec *e;
  ZN_TRY(zn_native_load(c, NULL, path, &e));
  if (json) print_json(&c->perm, zn_native_model(e));
  else print_model(&c->perm, zn_native_model(e));
  zn_native_unload(e);
  return ZN_OK;
}
