/* ImageDecoder, through the decoder that every host may use (runtime/zenith_image.c). */
#include "runtime/zenith_image.h"
#include "zenithc/eval/eval_impl.h"

static zn_status failed(zn_ev *e, int32_t code) {
  if (code == ZN_IMAGE_NO_LIBRARY)
    return zn_fail(e->c, ZN_ERR_UNSUPPORTED, zn_node_where(e->c, e->n), "images cannot be decoded: %s", zn_image_problem());
  return zn_ev_fail(e, code == ZN_IMAGE_FORMAT ? "the image is not JPEG, JPEG 2000, PNG, BMP, TIFF, WebP or PNM"
                                               : "the image is damaged, or of an unsupported kind");
}

zn_status zn_eval_imagedecoder(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  if (e->run->quiet) return ZN_ERR_UNSUPPORTED; /* never folded: artifacts do not depend on the library that is here */
  uint8_t *p = zn_arena_alloc(e->tmp, (size_t)x->count + 1);
  for (uint64_t k = 0; k < x->count; k++) p[k] = (uint8_t)x->u.i[k];
  const char *fmt = zn_node_str(e->n, "pixel_format");
  uint32_t pixels = fmt[0] == 'G' ? ZN_PIXELS_GRAY : fmt[0] == 'B' ? ZN_PIXELS_BGR : ZN_PIXELS_RGB;
  zn_tensor file = {.u.data = p, .bytes = x->count, .dtype = 2, .rank = 1, .shape = {(int64_t)x->count}}, image = {.dtype = 2};
  int32_t code = zn_image_decode(NULL, &file, pixels, &image);
  if (code) return failed(e, code);
  ZN_TRY(zn_ev_out(e, 0, ZN_U8, 3, image.shape));
  image.bytes = e->out[0].count;
  uint8_t *to = image.u.data = zn_arena_alloc(e->tmp, (size_t)image.bytes + 1);
  code = zn_image_decode(NULL, &file, pixels, &image);
  for (uint64_t k = 0; !code && k < image.bytes; k++) e->out[0].u.i[k] = to[k];
  return code ? failed(e, code) : ZN_OK;
}
