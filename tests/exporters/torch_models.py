"""Models of torch and transformers through both exporters of torch.onnx, at the size they were exported with and, where the
batch is dynamic, at another."""

import contextlib
import io
import logging
import math
import os
import re

import numpy as np
import onnx
import torch

import harness
import nets
import nms

logging.disable(logging.WARNING)


def first_line(e):
    """Without the colours that torch puts into its messages."""
    lines = re.sub(r"\x1b\[[0-9]*m", "", str(e)).splitlines()
    return lines[0][:90] if lines else ""


def flatten(x):
    if isinstance(x, torch.Tensor):
        return [x]
    if isinstance(x, dict):
        return [t for v in x.values() for t in flatten(v)]
    if isinstance(x, (list, tuple)):
        return [t for v in x for t in flatten(v)]
    return []


def export(model, args, path, dynamo, dynamic):
    """dynamic: per input a dict axis -> name."""
    kwargs = {}
    names = [f"in{i}" for i in range(len(args))]
    if dynamo:
        if dynamic:
            shapes = tuple({a: torch.export.Dim.AUTO for a in d} if d else None for d in dynamic)
            kwargs["dynamic_shapes"] = (shapes,) if isinstance(model, Wrap) else shapes  # Wrap takes *args
    elif dynamic:
        kwargs["dynamic_axes"] = {n: d for n, d in zip(names, dynamic) if d}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        torch.onnx.export(
            model,
            args,
            path,
            dynamo=dynamo,
            input_names=names,
            opset_version=18 if dynamo else 17,
            **({"external_data": False, "custom_translation_table": nms.TABLE} if dynamo else {}),
            **kwargs,
        )


def settle(model, args):
    """Batch norms as after training: the statistics of their inputs, and scales and shifts that are not 1 and 0. Without this
    every layer of a random network shrinks what depends on the input, and its result is hardly more than a bias."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for m in norms:
            m.momentum = None
            m.weight.uniform_(0.5, 1.5)
            m.bias.uniform_(-0.5, 0.5)
        if norms:
            model.train()
            for _ in range(4):
                model(*args)
        model.eval()


def dependence(model, args):
    """eta between the results on these arguments and on others of the same shapes."""
    others = tuple(t.flip(tuple(range(t.dim()))) * (0.5 if t.is_floating_point() else 1) for t in args)
    with torch.no_grad():
        pairs = zip(flatten(model(*args)), flatten(model(*others)))
    pairs = [(a.numpy(), b.numpy()) for a, b in pairs]
    return max(math.inf if a.shape != b.shape else harness.eta(a, b) for a, b in pairs)


def run(runner, name, model, args, dynamic=None, others=(), tolerance=5e-5, paths=(True, False)):
    """others: further argument tuples for the dynamic model."""
    settle(model, args)
    if not dependence(model, args) > 1e-2:
        raise ValueError(f"{name}: the results hardly depend on the inputs; this compares nothing")
    for dynamo in paths:
        exporter = "torch.onnx dynamo" if dynamo else "torch.onnx TorchScript"
        label = f"{name}-{'dynamo' if dynamo else 'script'}"
        path = os.path.join(runner.folder, label + ".onnx")
        try:
            with torch.no_grad():
                export(model, args, path, dynamo, dynamic)
        except Exception as e:  # pylint: disable=broad-except
            runner.skip(
                name,
                exporter,
                f"the exporter fails: {type(e).__name__} {first_line(e)}",
            )
            continue
        inputs = [i.name for i in onnx.load(path, load_external_data=False).graph.input]
        worst = None
        for a in (args, *others):
            with torch.no_grad():
                wanted = [t.numpy() for t in flatten(model(*a))]
            feeds = dict(zip(inputs, [t.numpy() for t in a]))
            if len(inputs) != len(a):
                feeds = {f"in{i}": t.numpy() for i, t in enumerate(a)}
            runner.check(label, exporter, feeds, wanted, tolerance)
            row = runner.rows.pop()
            row["model"] = name
            if (
                worst is None
                or row["result"] != "ok"
                or (worst["result"] == "ok" and (row["eta"] or 0) > (worst["eta"] or 0))
            ):
                worst = row
        worst["sizes"] = 1 + len(others)
        runner.rows.append(worst)


class Wrap(torch.nn.Module):
    """Positional arguments for models of transformers, tensors as results."""

    def __init__(self, model, names, **fixed):
        super().__init__()
        self.model, self.names, self.fixed = model, names, fixed

    def forward(self, *args):
        out = self.model(**dict(zip(self.names, args)), **self.fixed, return_dict=False)
        return tuple(t for t in flatten(out))


def ids(*shape):
    return torch.randint(1, 90, shape)


def cnns(runner):
    batch = [{0: "batch"}]
    for name, make, size in (
        ("ResNet", nets.resnet, 32),
        ("MobileNetV3", nets.mobilenet_v3, 32),
        ("EfficientNet", nets.efficientnet, 32),
        ("U-Net", nets.UNet, 32),
        ("Swin", nets.Swin, 32),
    ):
        run(runner, name, make(), (torch.rand(2, 3, size, size),), batch, [(torch.rand(3, 3, size, size),)])
    run(
        runner,
        "LSTM tagger",
        nets.Tagger(),
        (torch.randint(0, 50, (2, 7)),),
        [{0: "batch", 1: "time"}],
        [(torch.randint(0, 50, (2, 11)),)],
    )
    run(
        runner,
        "diffusion U-Net block",
        nets.DiffusionBlock(),
        (torch.randn(2, 16, 8, 8), torch.rand(2), torch.randn(2, 5, 12)),
    )
    run(runner, "detector, candidates", nets.Detector(), (torch.rand(1, 3, 32, 32),))
    run(runner, "detector with NMS", nets.Suppressing(), (torch.rand(1, 3, 64, 64),))


def transformers_models(runner):
    import transformers as tr

    torch.manual_seed(0)
    small = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=99)
    eager = dict(attn_implementation="eager")
    both = [{0: "batch", 1: "seq"}] * 2

    def attempt(name, make):
        try:
            make()
        except Exception as e:  # pylint: disable=broad-except
            runner.skip(name, "transformers", f"{type(e).__name__} {first_line(e)}")

    def bert():
        m = Wrap(tr.BertModel(tr.BertConfig(**small), **{}), ["input_ids", "attention_mask"])
        run(
            runner,
            "BERT",
            m,
            (ids(2, 8), torch.ones(2, 8, dtype=torch.int64)),
            both,
            [(ids(3, 5), torch.ones(3, 5, dtype=torch.int64))],
        )

    def vit():
        m = Wrap(
            tr.ViTForImageClassification(
                tr.ViTConfig(
                    image_size=32,
                    patch_size=8,
                    hidden_size=32,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    intermediate_size=48,
                    num_labels=7,
                )
            ),
            ["pixel_values"],
        )
        run(runner, "ViT", m, (torch.rand(2, 3, 32, 32),), [{0: "batch"}], [(torch.rand(3, 3, 32, 32),)])

    def decoder(name, cls, config):
        m = Wrap(cls(config), ["input_ids", "attention_mask"], use_cache=False)
        mask = [torch.ones(b, n, dtype=torch.int64) for b, n in ((2, 8), (3, 5))]
        run(runner, name, m, (ids(2, 8), mask[0]), both, [(ids(3, 5), mask[1])])

    def gpt2_cache():
        model = tr.GPT2LMHeadModel(
            tr.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=99, n_positions=64, **eager)
        )

        class Step(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, x, k0, v0, k1, v1):
                cache = tr.DynamicCache(ddp_cache_data=[(k0, v0), (k1, v1)]) if hasattr(tr, "DynamicCache") else None
                out = self.model(input_ids=x, past_key_values=cache, use_cache=True)
                new = out.past_key_values
                layers = [(layer.keys, layer.values) for layer in new.layers]
                return (out.logits, *[t for pair in layers for t in pair])

        past = [torch.randn(2, 4, 6, 8) for _ in range(4)]
        run(runner, "GPT-2 with KV cache", Step(), (ids(2, 1), *past))

    def t5():
        m = Wrap(
            tr.T5ForConditionalGeneration(
                tr.T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=99)
            ),
            ["input_ids", "decoder_input_ids"],
            use_cache=False,
        )
        run(
            runner,
            "T5",
            m,
            (ids(2, 8), ids(2, 4)),
            [{0: "batch", 1: "seq"}, {0: "batch", 1: "out"}],
            [(ids(2, 6), ids(2, 3))],
        )

    def whisper():
        config = tr.WhisperConfig(
            vocab_size=99,
            num_mel_bins=16,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            max_source_positions=20,
            max_target_positions=32,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
        whole = tr.WhisperModel(config)
        run(runner, "Whisper encoder", Wrap(whole.encoder, ["input_features"]), (torch.randn(2, 16, 40),))
        run(
            runner,
            "Whisper decoder",
            Wrap(whole.decoder, ["input_ids", "encoder_hidden_states", "attention_mask"], use_cache=False),
            (ids(2, 5), torch.randn(2, 20, 32), torch.ones(2, 5, dtype=torch.int64)),
        )

    attempt("BERT", bert)
    attempt("ViT", vit)
    attempt(
        "GPT-2",
        lambda: decoder(
            "GPT-2", tr.GPT2LMHeadModel, tr.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=99, n_positions=64)
        ),
    )
    attempt("GPT-2 with KV cache", gpt2_cache)
    attempt("T5", t5)
    attempt("Whisper", whisper)
    attempt("Llama", lambda: decoder("Llama", tr.LlamaForCausalLM, tr.LlamaConfig(num_key_value_heads=2, **small)))
    attempt("Qwen2", lambda: decoder("Qwen2", tr.Qwen2ForCausalLM, tr.Qwen2Config(num_key_value_heads=2, **small)))
