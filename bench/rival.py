"""One rival in a process of its own: loads a model, then runs it for as long as each line on stdin says.

Usage: rival.py ort|openvino THREADS MODEL.onnx INPUTS.npz

Answers in JSON, one object a line: first {"load_ms", "version"}, then for each line SECONDS read from stdin
{"median_ms", "p10_ms", "min_ms", "runs"}. Inputs stay bound between runs; a model's symbolic dimensions are fixed to
the shapes of the inputs, as they are for us.
"""
import json
import statistics
import sys
import time

import numpy as np


def ort_runner(path, threads, feed):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    for name, size in symbols(path, feed).items():
        options.add_free_dimension_override_by_name(name, size)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for i in session.get_inputs():
        binding.bind_ortvalue_input(i.name, ort.OrtValue.ortvalue_from_numpy(feed[i.name]))
    for o in session.get_outputs():
        binding.bind_output(o.name, "cpu")
    return lambda: session.run_with_iobinding(binding), ort.__version__


def symbols(path, feed):
    """Named dimensions of the inputs, with their sizes; names that two inputs disagree about are left alone."""
    import onnx

    found = {}
    for i in onnx.load(path, load_external_data=False).graph.input:
        if i.name not in feed:
            continue
        for d, size in zip(i.type.tensor_type.shape.dim, feed[i.name].shape):
            if d.dim_param:
                found.setdefault(d.dim_param, set()).add(int(size))
    return {name: min(sizes) for name, sizes in found.items() if len(sizes) == 1}


def openvino_runner(path, threads, feed):
    import openvino as ov

    core = ov.Core()
    model = core.read_model(path)
    model.reshape({name: list(a.shape) for name, a in feed.items() if a.ndim})
    compiled = core.compile_model(model, "CPU", {
        "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1})
    request = compiled.create_infer_request()
    keep = [ov.Tensor(feed[i.get_any_name()], shared_memory=True) for i in compiled.inputs]
    for i, t in zip(compiled.inputs, keep):
        request.set_tensor(i, t)
    return lambda: request.infer(), ov.__version__.split("-")[0]


def measure(run, seconds):
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        t0 = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - t0)
    times.sort()
    return {"median_ms": statistics.median(times) * 1e-6, "p10_ms": times[len(times) // 10] * 1e-6,
            "min_ms": times[0] * 1e-6, "runs": len(times)}


def main():
    engine, threads, path, inputs = sys.argv[1:5]
    with np.load(inputs) as z:
        feed = {name: np.ascontiguousarray(z[name]) for name in z.files}
    t0 = time.perf_counter()
    run, version = (ort_runner if engine == "ort" else openvino_runner)(path, int(threads), feed)
    load = time.perf_counter() - t0
    for _ in range(3):
        run()
    print(json.dumps({"load_ms": load * 1e3, "version": version}), flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(run, float(line))), flush=True)


if __name__ == "__main__":
    main()
