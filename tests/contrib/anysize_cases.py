"""Attention and its relatives with sizes that only the inputs know."""
from attention_cases import B, D, H, MS, N, S, i64, tables
from cases import case, f, f32, i32, i8


def make():
    x = ("b", "s", D)
    cache = ("b", N, "p", H)
    case("attention_any", "Attention",
         {"x": f(B, S, 5), "w": f(5, 3 * D) * 0.5, "b": f(3 * D), "m": i32([[0, 1, 1, 1, 1, 1, 1], [1] * 7]),
          "past": f(2, B, N, 4, H)}, outputs=("y", "present"), num_heads=N, unidirectional=1,
         dims={"x": ("b", "s", 5), "m": ("b", "t"), "past": (2, *cache)}, **MS)
    case("attention_any_ends", "Attention",
         {"x": f(B, S, 5), "w": f(5, 3 * D) * 0.5, "b": f(3 * D), "m": i32([2, 3, 0, 1])}, num_heads=N,
         dims={"x": (B, "s", 5)}, **MS)
    case("mha_any", "MultiHeadAttention",
         {"q": f(B, S, D), "k": f(B, S, D), "v": f(B, S, D), "bias": f(3 * D), "m": None, "ab": None, "pk": f(B, N, 5, H),
          "pv": f(B, N, 5, H)}, outputs=("y", "pk2", "pv2"), num_heads=N, unidirectional=1,
         dims={"q": x, "k": x, "v": x, "pk": cache, "pv": cache}, **MS)
    case("rotary_any", "RotaryEmbedding", {"x": f(B, S, D), "ids": i64(5), **tables(16, H // 2)},
         dims={"x": x, "cos": ("m", H // 2), "sin": ("m", H // 2)}, **MS)
    for name, s, past, total in (("token", 1, 5, 6), ("prompt", 4, 0, 4), ("buffer", 1, 9, 7)):
        n, kv, h = 4, 2, 16
        ins = {"q": f(1, s, n * h), "k": f(1, s, kv * h), "v": f(1, s, kv * h), "pk": f(1, kv, past, h),
               "pv": f(1, kv, past, h), "seq": i32([total - 1]), "total": i32(total), **tables(32, h // 2)}
        for c in ("pk", "pv"):
            ins[c][:, :, total - s :] = 0
        case("gqa_any_" + name, "GroupQueryAttention", ins, outputs=("y", "k2", "v2"), num_heads=n, kv_num_heads=kv,
             do_rotary=1, local_window_size=4,
             dims={"q": ("b", "s", n * h), "k": ("b", "s", kv * h), "v": ("b", "s", kv * h), "pk": ("b", kv, "p", h),
                   "pv": ("b", kv, "p", h), "seq": ("b",), "cos": ("m", h // 2), "sin": ("m", h // 2)}, **MS)
    # caches that slide and are quantized, a buffer that past and present share
    dims = {"q": ("b", "s", n * h), "k": ("b", "s", kv * h), "v": ("b", "s", kv * h), "pk": ("b", kv, "room", h),
            "pv": ("b", kv, "room", h), "seq": ("b",), "cos": ("m", h // 2), "sin": ("m", h // 2)}
    ins = {"q": f(2, 1, n * h), "k": 2 * f(2, 1, kv * h), "v": 2 * f(2, 1, kv * h), "pk": i8(2, kv, 5, h), "pv": i8(2, kv, 5, h),
           "seq": i32([8, 6]), "total": i32(9), **tables(32, h // 2), "ids": None, "ab": None, "sink": None, "ks": f32([0.02]),
           "vs": f32([0.03])}
    case("gqa_any_slide", "GroupQueryAttention", ins, outputs=("y", "k2", "v2"), num_heads=n, kv_num_heads=kv, do_rotary=1,
         local_window_size=5, sliding_window_cache=1, k_quant_type="PER_TENSOR", v_quant_type="PER_TENSOR",
         kv_cache_bit_width=8, dims=dims, **MS)
    room = ("b", N, "room", H)
    case("mha_any_shared", "MultiHeadAttention",
         {"q": f(B, S, D), "k": f(B, S, D), "v": f(B, S, D), "bias": None, "m": None, "ab": None, "pk": f(B, N, 9, H),
          "pv": f(B, N, 9, H), "len": i32([4])}, outputs=("y", "pk2", "pv2"), num_heads=N, unidirectional=1,
         dims={"q": x, "k": x, "v": x, "pk": room, "pv": room}, **MS)
