/* --config: options from a YAML mapping. Scalars give one value, lists several, mappings NAME=VALUE pairs. */
#include <yaml.h>

#include "zenithc/driver/options.h"

typedef struct reader {
  zn_ctx *c;
  zn_opts *o;
  const char *path;
  yaml_document_t *doc;
} reader;

static zn_status bad(const reader *r, const yaml_node_t *at, const char *what) {
  return zn_fail(r->c, ZN_ERR_USAGE, NULL, "%s:%zu: %s", r->path, at->start_mark.line + 1, what);
}

static const char *scalar(const reader *r, const yaml_node_t *n) {
  if (!n || n->type != YAML_SCALAR_NODE) return NULL;
  return zn_arena_strndup(&r->c->perm, (const char *)n->data.scalar.value, n->data.scalar.length);
}

static zn_status unknown_key(const reader *r, const yaml_node_t *at, const char *key) {
  const char *names[ZN_O_COUNT + 1];
  uint32_t n = 0;
  for (unsigned i = 0; i < ZN_O_COUNT; i++)
    names[n++] = zn_optdefs[i].spelling + strspn(zn_optdefs[i].spelling, "-");
  names[n++] = "model";
  const char *near = zn_nearest(key, names, n);
  zn_fail(r->c, ZN_ERR_USAGE, NULL, "%s:%zu: unknown option '%s'", r->path, at->start_mark.line + 1, key);
  if (near) zn_help(r->c, "did you mean %s?", near);
  else zn_help(r->c, "names are those of the command line without dashes");
  return ZN_ERR_USAGE;
}

static bool is_true(const char *s) {
  return !strcmp(s, "true") || !strcmp(s, "yes") || !strcmp(s, "on");
}

static zn_status set(const reader *r, const yaml_node_t *at, zn_optid id, const char *value) {
  zn_status st = zn_opts_set(r->c, r->o, id, value);
  if (st != ZN_OK) zn_note(r->c, "it stands at %s:%zu", r->path, at->start_mark.line + 1);
  return st;
}

static zn_status set_one(const reader *r, const yaml_node_t *node, zn_optid id) {
  const char *s = scalar(r, node);
  if (!s) return bad(r, node, "expected one value");
  if (zn_optdefs[id].kind != ZN_OK_FLAG) return set(r, node, id, s);
  if (is_true(s)) return set(r, node, id, "");
  if (!strcmp(s, "false") || !strcmp(s, "no") || !strcmp(s, "off")) return ZN_OK;
  return bad(r, node, "expected true or false");
}

static zn_status set_all(const reader *r, const yaml_node_t *node, zn_optid id) {
  bool list = zn_optdefs[id].kind == ZN_OK_LIST;
  if (node->type == YAML_SEQUENCE_NODE && list) {
    for (yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++)
      ZN_TRY(set_one(r, yaml_document_get_node(r->doc, *i), id));
    return ZN_OK;
  }
  if (node->type == YAML_MAPPING_NODE && list) {
    for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
      const char *k = scalar(r, yaml_document_get_node(r->doc, p->key));
      const char *v = scalar(r, yaml_document_get_node(r->doc, p->value));
      if (!k || !v) return bad(r, node, "expected NAME: VALUE pairs");
      ZN_TRY(set(r, node, id, zn_arena_printf(&r->c->perm, "%s=%s", k, v)));
    }
    return ZN_OK;
  }
  return set_one(r, node, id);
}

static zn_status read_mapping(const reader *r, const yaml_node_t *root) {
  bool had[ZN_O_COUNT], had_args = r->o->num_args > 0;
  for (unsigned i = 0; i < ZN_O_COUNT; i++) had[i] = r->o->val[i].n > 0;
  for (yaml_node_pair_t *p = root->data.mapping.pairs.start; p < root->data.mapping.pairs.top; p++) {
    const yaml_node_t *kn = yaml_document_get_node(r->doc, p->key);
    const yaml_node_t *vn = yaml_document_get_node(r->doc, p->value);
    const char *key = scalar(r, kn);
    if (!key) return bad(r, kn, "expected an option's name");
    if (!strcmp(key, "model")) {
      const char *v = scalar(r, vn);
      if (!v) return bad(r, vn, "expected the path of a model");
      if (!had_args) ZN_PUSH(&r->c->perm, r->o->args, r->o->num_args, r->o->cap_args, v);
      continue;
    }
    zn_optid id = zn_opt_find(key, strlen(key));
    if (id == ZN_O_COUNT || id == ZN_O_config) return unknown_key(r, kn, key);
    /* one file serves several subcommands: what does not apply to this one is left out */
    if (!had[id] && zn_opt_allowed(id, r->o->cmd)) ZN_TRY(set_all(r, vn, id));
  }
  return ZN_OK;
}

zn_status zn_opts_yaml(zn_ctx *c, zn_opts *o, const char *path, const char *text, size_t n) {
  yaml_parser_t parser;
  yaml_document_t doc;
  static const char how[] = "--config takes YAML text, an option a line as on the command line without dashes: `target: c`";
  if (memchr(text, 0, n)) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "--config %s: this is a binary file, and text is expected", path);
    zn_help(c, "%s", how);
    return ZN_ERR_USAGE;
  }
  if (!yaml_parser_initialize(&parser)) return zn_fail(c, ZN_ERR_USAGE, path, "cannot start the YAML reader");
  yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
  if (!yaml_parser_load(&parser, &doc)) {
    zn_status st = zn_fail(c, ZN_ERR_USAGE, NULL, "%s:%zu: %s", path, parser.problem_mark.line + 1,
                           parser.problem ? parser.problem : "not YAML");
    zn_help(c, "%s", how);
    yaml_parser_delete(&parser);
    return st;
  }
  reader r = {c, o, path, &doc};
  yaml_node_t *root = yaml_document_get_root_node(&doc);
  zn_status st = ZN_OK;
  if (root && root->type == YAML_MAPPING_NODE) st = read_mapping(&r, root);
  else if (root) st = bad(&r, root, "expected options as NAME: VALUE");
  yaml_document_delete(&doc);
  yaml_parser_delete(&parser);
  return st;
}
