"""Attention and its relatives of com.microsoft: every form of their inputs."""
import numpy as np

import onnx.helper as oh

from cases import case, f, f32, i8, i32, model_of, run, u8, unpack

MS = {"domain": "com.microsoft"}
B, S, N, H = 2, 3, 2, 8
D = N * H


def i64(*v):
    return np.array(v, np.int64)


def self_attention():
    w, b = f(5, 3 * D) * 0.5, f(3 * D)
    x = f(B, S, 5)

    def attention(name, extra=None, outputs=("y",), inputs=None, **attrs):
        ins = inputs or {"x": x, "w": w, "b": b, **(extra or {})}
        case("attention_" + name, "Attention", ins, outputs=outputs, num_heads=N, **MS, **attrs)

    attention("plain")
    attention("scale", scale=0.3)
    attention("mask_2d", {"m": i32([[1, 1, 0], [1, 0, 0]])})
    attention("mask_all_out", {"m": i32([[0, 0, 0], [1, 0, 1]])})
    attention("mask_3d", {"m": i32(np.random.default_rng(3).integers(0, 2, (B, S, S)))}, mask_filter_value=-500.0)
    attention("mask_ends", {"m": i32([2, 3])})
    attention("mask_ends_starts", {"m": i32([2, 3, 0, 1])})
    attention("causal", unidirectional=1)
    attention("causal_mask", {"m": i32([[1, 1, 0], [0, 1, 1]])}, unidirectional=1)
    attention("bias", {"m": None, "past": None, "bias": f(B, N, S, S)})
    attention("bias_mask", {"m": i32([[1, 1, 0], [1, 0, 1]]), "past": None, "bias": f(1, N, S, S)})
    past = {"m": None, "past": f(2, B, N, 4, H)}
    attention("past", past, outputs=("y", "present"), unidirectional=1)
    attention("past_mask", {"m": i32([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]]), "past": f(2, B, N, 4, H)},
              outputs=("y", "present"), unidirectional=1)
    attention("present", outputs=("y", "present"))
    # a buffer that past and present share, which ONNX Runtime does not have here: the same without one
    room = f(2, B, N, 9, H)
    known = {"x": x, "w": w, "b": b, "past": room[:, :, :, :4]}
    node = oh.make_node("Attention", ["x", "w", "b", "", "past"], ["y", "present"], num_heads=N, unidirectional=1, **MS)
    y, present = run(model_of([node], known, [("y", None), ("present", None)], {}), known)
    full = room.copy()
    full[:, :, :, 4 : 4 + S] = present[:, :, :, 4:]
    attention("shared", {"m": None, "past": room, "bias": None, "len": i32(4)}, outputs=("y", "present"), unidirectional=1,
              past_present_share_buffer=1, expected=[y, full])
    rotated(attention, x, w, b)
    attention("sizes", inputs={"x": x, "w": f(5, 2 * D + 6), "b": f(2 * D + 6)}, qkv_hidden_sizes=[D, D, 6])
    q = {"x": u8(B, S, 5), "w": i8(5, 3 * D), "b": b, "sx": f32(0.02), "sw": f32(0.01)}
    case("qattention", "QAttention", q, num_heads=N, **MS)
    case("qattention_columns", "QAttention",
         {**q, "sw": np.abs(f(3 * D)) * 0.02, "m": i32([2, 3]), "zx": np.array(120, np.uint8), "zw": i8(3 * D)},
         num_heads=N, unidirectional=1, **MS)
    case("qattention_past", "QAttention",
         {**q, "m": None, "zx": np.array(120, np.uint8), "zw": np.array(3, np.int8), "past": f(2, B, N, 4, H)},
         num_heads=N, unidirectional=1, outputs=("y", "present"), **MS)


def rotated(attention, x, w, b):
    """do_rotary, which ONNX Runtime has on GPUs only: the same with RotaryEmbedding and tables for the base 10000."""
    forms = (("rotary", 0, 0, 0), ("rotary_part", 0, 4, 0), ("rotary_past", 4, 0, 0), ("rotary_shared", 4, 0, 9))
    for name, past, dim, room in forms:
        size = dim or H
        angle = np.arange(16)[:, None] / 10000.0 ** (2 * np.arange(size // 2) / size)
        turns = {"cos": np.cos(angle).astype(np.float32), "sin": np.sin(angle).astype(np.float32)}
        known = {"x": x, "w": w, "b": b, "at": i64(past), **turns}
        if past:
            known.update(pk=f(B, N, past, H), pv=f(B, N, past, H))
        turn = {"num_heads": N, "rotary_embedding_dim": dim, **MS} if dim else MS
        nodes = [oh.make_node("MatMul", ["x", "w"], ["p"]), oh.make_node("Add", ["p", "b"], ["s"]),
                 oh.make_node("Split", ["s"], ["q", "k", "v"], axis=2, num_outputs=3)]
        nodes += [oh.make_node("RotaryEmbedding", [n, "at", "cos", "sin"], [n + "r"], **turn) for n in "qk"]
        inner = ["qr", "kr", "v", "", "", ""] + (["pk", "pv"] if past else [])
        nodes += [oh.make_node("MultiHeadAttention", inner, ["y", "k2", "v2"], num_heads=N, unidirectional=1, **MS)]
        y, k, v = run(model_of(nodes, known, [(n, None) for n in ("y", "k2", "v2")], {}), known)
        present, extra = np.stack([k, v]), {"m": None, "past": np.stack([known["pk"], known["pv"]]) if past else None}
        attrs = {"rotary_embedding_dim": dim} if dim else {}
        if room:
            full = f(2, B, N, room, H)
            full[:, :, :, : past + S] = present
            extra = {"m": None, "past": full.copy(), "bias": None, "len": i32(past)}
            extra["past"][:, :, :, past:] = 7
            present = extra["past"].copy()
            present[:, :, :, past : past + S] = np.stack([k, v])[:, :, :, past:]
            attrs["past_present_share_buffer"] = 1
        attention(name, extra, outputs=("y", "present"), unidirectional=1, do_rotary=1, expected=[y, present], **attrs)


def multi_head():
    q, k, v = f(B, S, D), f(B, 4, D), f(B, 4, D)
    base = {"q": q, "k": k, "v": v}
    bias = f(3 * D)

    def mha(name, inputs, outputs=("y",), **attrs):
        case("mha_" + name, "MultiHeadAttention", inputs, outputs=outputs, num_heads=N, **MS, **attrs)

    mha("plain", base)
    mha("scale_bias", {**base, "bias": bias}, scale=0.4)
    mha("v_size", {"q": q, "k": k, "v": f(B, 4, 6), "bias": f(2 * D + 6)})
    mha("lengths", {**base, "bias": None, "m": i32([2, 4])})
    mha("mask_2d", {**base, "bias": bias, "m": i32([[1, 0, 1, 1], [0, 0, 0, 0]])})
    mha("mask_3d", {**base, "bias": None, "m": i32(np.random.default_rng(3).integers(0, 2, (B, S, 4)))})
    mha("additive", {**base, "bias": None, "m": i32([[1, 0, 1, 1], [1, 1, 1, 0]]), "ab": f(1, N, S, 4)})
    mha("additive_one_head", {**base, "bias": None, "m": None, "ab": f(B, 1, S, 4)})
    same = {"q": q, "k": f(B, S, D), "v": f(B, S, D)}
    mha("causal", same, unidirectional=1)
    past = {"bias": bias, "m": None, "ab": None, "pk": f(B, N, 5, H), "pv": f(B, N, 5, H)}
    mha("past", {**same, **past}, outputs=("y", "pk2", "pv2"))
    mha("past_causal", {**same, **past, "ab": f(B, N, S, S + 5)}, outputs=("y", "pk2", "pv2"), unidirectional=1)
    shared = {"bias": bias, "m": None, "ab": None, "pk": f(B, N, 9, H), "pv": f(B, N, 9, H), "len": i32([4])}
    mha("shared", {**same, **shared, "m": i32([[1, 0, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1, 1]])}, outputs=("y", "pk2", "pv2"))
    mha("shared_causal", {**same, **shared}, outputs=("y", "pk2", "pv2"), unidirectional=1)
    beams = i32([[[1, 0, 1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0, 0]]])
    token = {"q": f(B, 1, D), "k": f(B, 1, D), "v": f(B, 1, D)}
    mha("beams", {**token, **shared, "beams": beams}, outputs=("y", "pk2", "pv2"))
    mha("apart", {"q": q, "k": f(B, N, 4, H), "v": f(B, N, 4, H)})
    mha("apart_mask", {"q": q, "k": f(B, N, 4, H), "v": f(B, N, 4, H), "bias": None, "m": i32([[1, 1, 0, 1], [1, 0, 1, 1]])})
    packed = f(B, S, N, 3, H)
    mha("packed", {"q": packed, "k": None, "v": None, "bias": bias},
        oracle={**{n: unpack(packed, i) for i, n in enumerate("qkv")}, "bias": bias})
    packed = f(B, 4, N, 2, H)
    mha("packed_kv", {"q": q, "k": packed, "v": None, "bias": None, "m": i32([1, 3])},
        oracle={"q": q, "k": unpack(packed, 0), "v": unpack(packed, 1), "bias": None, "m": i32([1, 3])})


def tables(rows, half):
    angle = np.arange(rows)[:, None] * np.exp(-np.arange(half) * 0.7)[None, :]
    return {"cos": np.cos(angle).astype(np.float32), "sin": np.sin(angle).astype(np.float32)}


def rotary():
    def rot(name, x, ids, half, **attrs):
        case("rotary_" + name, "RotaryEmbedding", {"x": x, "ids": ids, **tables(16, half)}, **MS, **attrs)

    rot("offset", f(B, S, D), i64(5), H // 2)
    rot("matrix", f(B, S, D), np.array([[3, 1, 0], [7, 8, 9]]), H // 2, interleaved=1)
    rot("apart", f(B, N, S, H), np.array([[3, 1, 0], [7, 8, 9]]), H // 2)
    rot("apart_offset", f(B, N, S, H), i64(2), H // 2, interleaved=1)
    rot("part", f(B, S, D), i64(1), 2, num_heads=N, rotary_embedding_dim=4)


def group_query():
    n, kv, h = 4, 2, 16

    def gqa(name, b, s, past, lengths, total, extra=None, packed=False, rot=0, outputs=("y", "k2", "v2"), **attrs):
        ins = {"q": f(b, s, n * h), "k": f(b, s, kv * h), "v": f(b, s, kv * h)}
        if packed:
            ins = {"q": f(b, s, (n + 2 * kv) * h), "k": None, "v": None}
        pk, pv = (f(b, kv, past, h), f(b, kv, past, h)) if past else (None, None)
        for i, t in enumerate(lengths):
            if past:  # rows that hold nothing
                used = max(0, t - s)
                pk[i, :, used:] = 0
                pv[i, :, used:] = 0
        ins.update(pk=pk, pv=pv, seq=i32([t - 1 for t in lengths]), total=i32(total))
        if rot:
            ins.update(tables(32, rot))
        if extra:
            ins.update({name: None for name in ("cos", "sin") if not rot}, ids=None)
            ins.update(extra)
        case("gqa_" + name, "GroupQueryAttention", ins, outputs=outputs, num_heads=n, kv_num_heads=kv,
             do_rotary=int(rot > 0), **MS, **attrs)

    gqa("prompt", 2, 4, 0, [4, 4], 4)
    gqa("prompt_rotary", 1, 4, 0, [4], 4, rot=8, scale=0.2)
    gqa("prompt_buffer", 2, 4, 7, [4, 4], 4, rot=8, rotary_interleaved=1)
    gqa("token", 2, 1, 5, [6, 4], 6, rot=8)
    gqa("token_buffer", 2, 1, 9, [6, 4], 6, rot=8, packed=True)
    gqa("chunk", 1, 3, 4, [7], 7, rot=8)
    gqa("part_rotary", 1, 3, 4, [7], 7, rot=8)
    gqa("window", 1, 6, 0, [6], 6, local_window_size=2)
    gqa("window_token", 2, 1, 7, [8, 5], 8, rot=8, local_window_size=3)
    gqa("softcap", 1, 4, 0, [4], 4, softcap=0.7)
    gqa("smooth", 2, 4, 0, [4, 4], 4, smooth_softmax=1)
    gqa("smooth_window", 1, 3, 4, [7], 7, smooth_softmax=1, local_window_size=3, softcap=2.0)
    gqa("packed", 2, 4, 0, [4, 4], 4, packed=True, rot=8)
    gqa("bias", 2, 4, 0, [4, 4], 4, {"ab": f(2, n, 4, 4)}, softcap=2.0)
    gqa("bias_token", 2, 1, 5, [6, 4], 6, {"ab": f(1, 1, 1, 6)}, rot=8)
    gqa("sink", 2, 4, 0, [4, 4], 4, {"ab": None, "sink": f(n)})
    gqa("sink_window", 1, 3, 4, [7], 7, {"ab": f(1, n, 3, 7), "sink": f(n)}, rot=8, local_window_size=3)
    gqa("positions", 1, 3, 4, [7], 7, {"ids": np.array([[6, 4, 5]])}, rot=8)
    gqa("both_ways", 2, 4, 0, [4, 4], 4, causal=0)
    caches(n, kv, h)
    gqa("scores", 2, 4, 0, [4, 4], 4, outputs=("y", "k2", "v2", "s"), qk_output=2)


def caches(n, kv, h):
    """Quantized caches, caches that slide; rows that hold nothing are zeros, before and behind."""

    def step(name, b, s, room, lengths, total=None, bits=0, channel=False, rot=0, extra=None, lost=0, **attrs):
        ins = {"q": f(b, s, n * h), "k": 2 * f(b, s, kv * h), "v": 2 * f(b, s, kv * h)}
        shape = (b, kv, room, h // 2 if bits == 4 else h)
        kind = {0: f, 4: u8, 8: lambda *d: u8(*d).view(np.int8)}[bits]
        ins.update(pk=kind(*shape), pv=kind(*shape), seq=i32([t - 1 for t in lengths]), total=i32(total or max(lengths)))
        for i, t in enumerate(lengths):
            for c in ("pk", "pv"):
                ins[c][i, :, max(0, t - s) :] = 0
        ins.update({name: None for name in ("cos", "sin", "ids", "ab", "sink")})
        if rot:
            ins.update(tables(32, rot))
        if bits:
            for c in ("ks", "vs"):
                ins[c] = f32(np.abs(f(1, kv, 1, h)) * 0.3 + 0.1 if channel else [0.3]) / (1 if bits == 4 else 16)
            kind = "PER_CHANNEL" if channel else "PER_TENSOR"
            attrs.update(k_quant_type=kind, v_quant_type=kind, kv_cache_bit_width=bits)
        ins.update(extra or {})
        case("gqa_" + name, "GroupQueryAttention", ins, outputs=("y", "k2", "v2"), num_heads=n, kv_num_heads=kv,
             do_rotary=int(rot > 0), **MS, **attrs)

    for bits in (8, 4):
        step(f"quant_{bits}", 2, 1, 6, [6, 4], bits=bits)
        step(f"quant_{bits}_channel", 1, 3, 7, [7], bits=bits, channel=True, rot=8)
        step(f"quant_{bits}_prompt", 2, 4, 5, [4, 4], bits=bits, channel=True)
    # full after the step, so that every row is told: T = room, or the room less what was dropped at once
    slide = {"sliding_window_cache": 1}
    step("slide_first", 2, 5, 5, [5, 5], local_window_size=3, **slide)
    step("slide_full", 2, 1, 5, [8, 6], local_window_size=5, rot=8, **slide)
    step("slide_steps", 1, 4, 6, [12], local_window_size=6, **slide)
    step("slide_long", 1, 9, 4, [11], local_window_size=4, rot=8, softcap=2.0, **slide)
    step("slide_slack", 1, 2, 6, [9], local_window_size=4, **slide)
    step("slide_bias", 1, 2, 5, [9], local_window_size=5, extra={"ab": f(1, n, 2, 9)}, **slide)
    step("slide_sink", 2, 1, 5, [9, 7], local_window_size=5, extra={"sink": f(n)}, **slide)
    step("slide_quant", 2, 1, 5, [9, 7], bits=8, local_window_size=5, rot=8, **slide)


def make():
    self_attention()
    multi_head()
    rotary()
    group_query()
