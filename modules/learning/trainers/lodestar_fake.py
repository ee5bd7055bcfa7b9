"""A trainer that learns nothing: for tests, and to try the path from a dataset to a version.

It needs the standard library alone. Its loss falls by a formula, and its adapter is zero
everywhere, so that a version of it answers as its base does. Equal jobs give equal bytes.
"""

import json
import os
import struct

from lodestar_contract import PROJECTIONS, Failure, base_config, checkpoint_to_resume, main
from lodestar_contract import read_lines, steps_of

STATE = "state.json"


def shapes(config):
    """Returns the sizes (out, in) of each projection of a layer, by its name."""
    try:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        head = config.get("head_dim") or hidden // heads
        queries, keys = heads * head, (config.get("num_key_value_heads") or heads) * head
        inner = config["intermediate_size"]
        layers = config["num_hidden_layers"]
    except (KeyError, TypeError, ZeroDivisionError):
        raise Failure(2, "config.json of the base lacks sizes") from None
    sizes = {
        "q_proj": (queries, hidden), "k_proj": (keys, hidden), "v_proj": (keys, hidden),
        "o_proj": (hidden, queries), "gate_proj": (inner, hidden), "up_proj": (inner, hidden),
        "down_proj": (hidden, inner),
    }
    return layers, sizes


def write_adapter(run, config):
    """Writes an adapter of zeros in PEFT's form."""
    lora = run.job["lora"]
    chosen = lora.get("target_modules") or PROJECTIONS
    layers, sizes = shapes(config)
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for layer in range(layers):
        for name in chosen:
            if name not in sizes:
                raise Failure(2, f"no projection is named {name!r}")
            part = "self_attn" if name in PROJECTIONS[:4] else "mlp"
            out, inner = sizes[name]
            for matrix, shape in (("lora_A", [lora["r"], inner]), ("lora_B", [out, lora["r"]])):
                size = 4 * shape[0] * shape[1]
                place = f"base_model.model.model.layers.{layer}.{part}.{name}.{matrix}.weight"
                data = [offset, offset + size]
                header[place] = {"dtype": "F32", "shape": shape, "data_offsets": data}
                offset += size
    text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(run.output, "adapter_model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    adapter = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "r": lora["r"],
        "base_model_name_or_path": run.job["base"]["path"], "lora_alpha": lora["alpha"],
        "lora_dropout": 0.0, "target_modules": sorted(chosen), "use_dora": False,
        "use_rslora": False, "inference_mode": True, "fan_in_fan_out": False,
    }
    with open(os.path.join(run.output, "adapter_config.json"), "w", encoding="utf-8") as file:
        json.dump(adapter, file, indent=1, sort_keys=True)
    return offset // 4


def train(run):
    """Takes the steps of a job."""
    job = run.job
    config = base_config(job)
    examples = read_lines(job["dataset"]["train"])
    max_steps, step = steps_of(job, len(examples)), 0
    resume = checkpoint_to_resume(job)
    if resume is not None:
        with open(os.path.join(resume, STATE), encoding="utf-8") as file:
            step = json.load(file)["step"]
    run.environment(trainer="fake", device="none")
    run.tell("ready", trainable=0, examples=len(examples), step=step, max_steps=max_steps)

    def checkpoint():
        folder = os.path.join(run.output, f"checkpoint-{step}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, STATE), "w", encoding="utf-8") as file:
            json.dump({"step": step}, file)
        run.tell("checkpoint", step=step, path=folder)

    run.is_learning = True
    while step < max_steps:
        step += 1
        run.progress(step, max_steps, 4.0 / (1.0 + 0.1 * step) + 0.5, lr=job["train"]["lr"])
        code = run.reason_to_stop() if step < max_steps else None
        if code is not None or step % job["train"]["save_every"] == 0:
            checkpoint()
        if code is not None:
            run.stop(code, step)
    run.tell("eval", step=step, loss=4.0 / (1.0 + 0.1 * step) + 0.6)
    write_adapter(run, config)
    run.finish(step)


if __name__ == "__main__":
    main(train)
