"""com.microsoft's operators of language-model decoders: gates, states, positions, quantized embeddings, experts."""
import numpy as np

from cases import case, f, f32, i32, rng, u8


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def gates():
    g, l = 3 * f(2, 3, 8), 3 * f(2, 3, 8)
    case("swiglu", "SwiGLU", {"g": g, "l": l}, expected=[silu(g) * l])
    most = np.float32(1.5)
    y = np.minimum(g, most) * sigmoid(np.float32(1.702) * np.minimum(g, most)) * (np.clip(l, -most, most) + 1)
    case("swiglu_limit", "SwiGLU", {"g": np.concatenate([g, l], -1)}, activation_alpha=1.702, activation_beta=1.0, limit=1.5,
         expected=[y])
    case("scaled_silu", "ScaledSiLU", {"x": g}, alpha=0.7)
    case("scaled_silu_scale", "ScaledSiLU", {"x": g, "s": f32([1.3])}, expected=[silu(np.float32(1.3) * g)])
    case("gated_add", "GatedAdd", {"x": g, "l": l, "g": f(2, 3, 1)})
    a, bias, scale, b = f(2, 3, 4), f(4), -np.abs(f(4)), f(2, 3, 4)
    case("attention_gate", "LinearAttentionGate", {"a": a, "bias": bias, "scale": scale, "b": b}, outputs=("d", "beta"))
    for act in ("silu", "sigmoid"):
        case(f"gated_rms_{act}", "GatedRMSNorm", {"x": g, "s": f(4), "g": l}, activation=act)
    case("branch_rms", "BranchwiseRMSNorm", {"x": g.reshape(2, 3, 2, 4), "s": f(2, 4)})
    case("branch_rms_flat", "BranchwiseRMSNorm", {"x": g, "s": f(8)}, num_branches=2, epsilon=0.1)
    case("branch_rms_shared", "BranchwiseRMSNorm", {"x": g, "s": f(4)}, num_branches=2)
    case("branch_rms_plain", "BranchwiseRMSNorm", {"x": g}, num_branches=4)


def states():
    x, w, b, past = f(2, 4, 6), f(4, 1, 3), f(4), f(2, 4, 2)
    case("causal_conv", "CausalConvWithState", {"x": x, "w": w, "b": b, "p": past}, outputs=("y", "s"), activation="silu")
    case("causal_conv_plain", "CausalConvWithState", {"x": x, "w": w}, outputs=("y", "s"))
    case("causal_conv_last", "CausalConvWithState",
         {"x": x.swapaxes(1, 2).copy(), "w": w, "b": b, "p": past.swapaxes(1, 2).copy()}, outputs=("y", "s"), channels_last=1)
    heads = {"q_num_heads": 4, "kv_num_heads": 2}
    ins = {"q": f(2, 5, 12), "k": f(2, 5, 6) / 2, "v": f(2, 5, 8)}
    more = {"p": f(2, 2, 3, 4), "d": -np.abs(f(2, 5, 2)), "b": sigmoid(f(2, 5, 2))}
    for rule, names in (("linear", ""), ("gated", "pd"), ("delta", "pb"), ("gated_delta", "pdb")):
        given = {**ins, **{n: more[n] if n in names else None for n in "pdb"}}
        case(f"linear_attention_{rule}", "LinearAttention", given, outputs=("y", "s"), update_rule=rule, **heads)


def positions():
    x, cos, sin = f(2, 3, 16), f(9, 4), f(9, 4)
    ids = rng.integers(0, 9, (3, 2, 3))
    for layout, section in ((0, [1, 2, 1]), (1, [2, 1, 1])):
        case(f"mrotary_{layout}", "MRotaryEmbedding", {"x": x, "i": ids, "c": cos, "s": sin}, mrope_section=section,
             mrope_layout=layout, num_heads=2)
    case("mrotary_heads", "MRotaryEmbedding", {"x": f(2, 2, 3, 8), "i": ids, "c": cos, "s": sin}, mrope_section=[2, 1, 1],
         interleaved=1)
    emb = f(2, 3, 4)
    q, qr, k, kr = (f(2, 2, 3, 4).astype(np.float16) for _ in range(4))
    c, s = (t(emb).astype(np.float16)[:, None] for t in (np.cos, np.sin))
    case("gemma_rotary", "GemmaRotaryEmbedding", {"e": emb, "q": q, "qr": qr, "k": k, "kr": kr}, outputs=("a", "b"),
         expected=[q * c + qr * s, k * c + kr * s])


def embeddings():
    rows = np.array([[0, 5, 2], [-1, 3, 3]])
    for bits in (2, 4, 8):
        table = u8(6, 64 * bits // 8)
        attrs = {"bits": bits, "block_size": 16, "gather_axis": 0, "quantize_axis": 1}
        case(f"gather_blocks_{bits}", "GatherBlockQuantized", {"d": table, "i": rows}, fixed="d", consts={"s": f(6, 4)}, **attrs)
        case(f"gather_blocks_{bits}_zero", "GatherBlockQuantized", {"d": table, "i": rows}, fixed="d",
             consts={"s": f(6, 4), "z": u8(6, 4 * bits // 8)}, **attrs)
    case("gather_blocks_out", "GatherBlockQuantized", {"d": u8(6, 32), "i": np.array([1, 9, -7], np.int32)}, fixed="d",
         consts={"s": f(6, 2)}, bits=8, block_size=16)


def bnb4():
    for kind in (0, 1):
        case(f"bnb4_{kind}", "MatMulBnb4", {"a": f(3, 32)}, consts={"b": u8(5 * 32 // 2), "s": np.abs(f(10))}, K=32, N=5,
             block_size=16, quant_type=kind)


def experts():
    x, r, hidden, inner = f(2, 3, 8), f(6, 4), 8, 6
    w1, b1, w2, b2, w3, b3 = f(4, inner, hidden), f(4, inner), f(4, hidden, inner), f(4, hidden), f(4, inner, hidden), f(4, inner)
    base = {"x": x, "r": r, "w1": w1, "b1": b1, "w2": w2, "b2": b2}
    for act in ("relu", "gelu", "silu", "identity"):
        case(f"moe_{act}", "MoE", base, activation_type=act, k=2)
    case("moe_normalized", "MoE", {**base, "x": x.reshape(6, 8)}, activation_type="silu", k=2, normalize_routing_weights=1)
    case("moe_no_bias", "MoE", {**base, "b1": None, "b2": None}, activation_type="gelu")
    fused = {**base, "w1": f(4, 2 * inner, hidden), "b1": f(4, 2 * inner)}
    case("moe_interleaved", "MoE", fused, activation_type="swiglu", swiglu_fusion=1, k=2, normalize_routing_weights=1,
         activation_alpha=1.702, activation_beta=1.0, swiglu_limit=1.0)
    y = moe(x, r, fused, 2)
    case("moe_halves", "MoE", fused, activation_type="swiglu", swiglu_fusion=2, k=2, normalize_routing_weights=1, expected=[y])


def moe(x, router, t, k):
    """Mixtral's: the best k, their probabilities scaled to 1, gate and linear half one behind the other."""
    flat = x.reshape(-1, x.shape[-1]).astype(np.float64)
    out = np.zeros_like(flat)
    for i, logits in enumerate(router.astype(np.float64)):
        best = np.argsort(-logits)[:k]
        p = np.exp(logits[best] - logits[best].max())
        for e, w in zip(best, p / p.sum()):
            g, l = np.split(t["w1"][e] @ flat[i] + t["b1"][e], 2)
            out[i] += w * (t["w2"][e] @ (silu(g) * l) + t["b2"][e])
    return out.reshape(x.shape).astype(np.float32)


def make():
    gates()
    states()
    positions()
    embeddings()
    bnb4()
    experts()
