/* ImageDecoder: the host decodes (zn_host.decode_image). A kernel describes the file as a zn_tensor, the host tells the sizes,
 * those are defined or required; a second kernel says where the pixels go, and the host writes them there. */
#include "codegen/lower/lists.h"
#include "codegen/lower/scope.h"
#include "runtime/zenith.h"

enum { IMAGE_DIM = (ZN_TENSOR_BYTES + ZN_T_SHAPE) / 8 }; /* the image's shape, in words behind the file's zn_tensor */

static zn_status pixels_of(zn_lw *lw, zn_nid n, zn_pixels *out) {
  const char *fmt = zn_node_str(zn_lw_node(lw, n), "pixel_format");
  static const char *const names[] = {"RGB", "BGR", "Grayscale"};
  for (int k = 0; k < 3; k++)
    if (!strcmp(fmt, names[k])) {
      *out = (zn_pixels)k;
      return ZN_OK;
    }
  return zn_error(lw->ctx, zn_node_where(lw->ctx, zn_lw_node(lw, n)), "pixel_format is '%s', not RGB, BGR or Grayscale", fmt);
}

/* The bytes of the file, in memory. */
static zn_loc file_bytes(zn_lw *lw, zn_nid n, zn_vid x) {
  if (!lw->g->vals[x].inlined) return zn_lw_source(lw, n, x);
  const zn_type t = *zn_lw_type(lw, x);
  zn_loc to = zn_lw_scratch(lw, zn_lw_bytes(lw, &t));
  zn_lw_kernel(lw, n, "image_file");
  zn_kref p = zn_lw_ptr_loc(lw, to, ZN_KP_OUT, ZN_U8);
  zn_expr i = zn_lw_for(lw, t.dims[0], ZN_FOR_SERIAL, 0);
  zn_lw_store_at(lw, p, ZN_U8, i, zn_lw_load(lw, x, &i));
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return to;
}

static void ask(zn_lw *lw, zn_loc request, zn_loc file, zn_loc image, zn_pixels pixels) {
  zn_step s = {.kind = ZN_STEP_IMAGE, .loc = request, .code = (int32_t)pixels};
  ZN_PUSH(lw->arena, s.args, s.num_args, s.cap_args, ((zn_arg){.loc = file, .access = ZN_KP_IN}));
  if (image.kind != ZN_LOC_NONE)
    ZN_PUSH(lw->arena, s.args, s.num_args, s.cap_args, ((zn_arg){.loc = image, .access = ZN_KP_OUT}));
  zn_lw_push(lw, s);
}

static void describe_file(zn_lw *lw, zn_nid n, zn_loc request, zn_loc file, zn_expr len) {
  zn_lw_kernel(lw, n, "image_sizes");
  zn_kb *b = &lw->kb;
  zn_kref p = zn_lw_ptr_loc(lw, request, ZN_KP_OUT, ZN_U64), from = zn_lw_ptr_loc(lw, file, ZN_KP_IN, ZN_U8);
  zn_kref count = zn_lw_ix(lw, len), zero = zn_kb_idx(b, 0), none = zn_kb_int(b, ZN_U64, 0);
  zn_kref image = zn_kb_ptradd(b, p, zn_kb_idx(b, ZN_TENSOR_BYTES)), dims[3] = {zero, zero, zero};
  zn_ls_write(lw, p, from, count, (uint32_t)zn_dtypes[ZN_U8].onnx, 1, &count);
  zn_ls_write(lw, image, p, zero, (uint32_t)zn_dtypes[ZN_U8].onnx, 3, dims);
  zn_kb_store(b, image, zero, none); /* no pixels yet */
  zn_lw_kernel_end(lw);
}

/* The sizes that the host told become the symbols of y's shape, or must equal what the model says. */
static void take_sizes(zn_lw *lw, zn_vid y, zn_loc request) {
  const zn_type t = *zn_lw_type(lw, y);
  for (int d = 0; d < 3; d++) {
    bool defines = zn_ex_kind(lw->ex, t.dims[d]) == ZN_EX_SYM && !zn_ex_def(lw->ex, t.dims[d]);
    for (int e = 0; e < d; e++) defines &= t.dims[e] != t.dims[d];
    zn_expr told = defines ? t.dims[d] : zn_infer_fresh(lw->g, "image", ZN_EX_NONE);
    zn_lw_define_sym_at(lw, told, request, IMAGE_DIM + (uint32_t)d);
    if (!defines) zn_lw_push(lw, (zn_step){.kind = ZN_STEP_REQUIRE, .a = told, .b = t.dims[d], .code = ZN_RUN_SHAPE});
  }
}

static void describe_pixels(zn_lw *lw, zn_nid n, zn_vid y, zn_loc request) {
  const zn_type t = *zn_lw_type(lw, y);
  zn_lw_kernel(lw, n, "image_pixels");
  zn_kb *b = &lw->kb;
  zn_kref p = zn_lw_ptr_loc(lw, request, ZN_KP_INOUT, ZN_U64), to = zn_lw_ptr(lw, y, ZN_KP_OUT), dims[3];
  zn_kref image = zn_kb_ptradd(b, p, zn_kb_idx(b, ZN_TENSOR_BYTES)), bytes = zn_lw_ix(lw, zn_lw_bytes(lw, &t));
  for (int d = 0; d < 3; d++) dims[d] = zn_lw_ix(lw, t.dims[d]);
  zn_ls_write(lw, image, to, bytes, (uint32_t)zn_dtypes[ZN_U8].onnx, 3, dims);
  zn_lw_kernel_end(lw);
}

static zn_status kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid x = node->in[0], y = node->out[0];
  zn_pixels pixels = ZN_PIXELS_RGB;
  ZN_TRY(pixels_of(lw, n, &pixels));
  zn_loc request = zn_lw_scratch(lw, zn_ex_const(lw->ex, 2 * ZN_TENSOR_BYTES)), none = {0}, file = file_bytes(lw, n, x);
  describe_file(lw, n, request, file, zn_lw_dim(lw, x, 0));
  ask(lw, request, file, none, pixels);
  take_sizes(lw, y, request);
  describe_pixels(lw, n, y, request);
  ask(lw, request, file, zn_lw_loc(lw, y), pixels);
  return ZN_OK;
}
const zn_lower zn_lower_imagedecoder = {NULL, kernel};
