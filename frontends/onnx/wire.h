/* Protobuf wire format, before protobuf-c sees it: the structure of a message without its payload. */
#ifndef ZN_ONNX_WIRE_H
#define ZN_ONNX_WIRE_H
#include <protobuf-c/protobuf-c.h>

#include "zenithc/base/diag.h"

enum {
  ZN_WIRE_DEPTH = 100,      /* nesting of messages, as in the reference implementation of protobuf */
  ZN_WIRE_LOCAL_FIELD = 1000 /* field numbers from here are ours: dropped from input */
};

/* Reads the message in data[0..n), which stays borrowed, and unpacks it as `md` into arena a. Before that a walk over the
 * bytes checks every length and the nesting, drops fields that the schema does not name, and replaces each payload field
 * of a TensorProto (raw_data and the packed typed data) by a `view` of its place, so that nothing large is copied.
 * Memory taken from a stays below a small multiple of the structure's bytes (never of what they claim).
 * what: "model", "tensor", for messages. NULL after an error has been reported. */
ProtobufCMessage *zn_wire_read(zn_ctx *c, zn_arena *a, const uint8_t *data, size_t n,
                               const ProtobufCMessageDescriptor *md, const char *what);

/* Decodes one varint at *p; false at the end of the data or after ten bytes. */
bool zn_wire_varint(const uint8_t **p, const uint8_t *end, uint64_t *out);
#endif
