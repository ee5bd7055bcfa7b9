"""The strategy `llama-factory`: LLaMA-Factory's supervised training, in this process.

Its own log knows the progress but no checkpoints, and a signal ends it in the middle of a step, so
that a callback keeps the contract.
"""

import json
import os

from lodestar_contract import PROJECTIONS, checkpoint_to_resume, main, read_lines, steps_of


def write_dataset(run):
    """Writes the examples with their description, and returns their numbers."""
    folder = os.path.join(run.output, "dataset")
    os.makedirs(folder, exist_ok=True)
    tags = {
        "role_tag": "role", "content_tag": "content", "user_tag": "user",
        "assistant_tag": "assistant", "system_tag": "system",
    }
    described, numbers = {}, {}
    for name in ("train", "eval"):
        path = run.job["dataset"].get(name)
        if not path:
            continue
        lines = read_lines(path)
        numbers[name] = len(lines)
        with open(os.path.join(folder, name + ".jsonl"), "w", encoding="utf-8") as file:
            for line in lines:
                messages = [
                    {"role": it["role"], "content": it["content"]} for it in line["messages"]]
                file.write(json.dumps({"messages": messages}) + "\n")
        described[name] = {
            "file_name": name + ".jsonl", "formatting": "sharegpt",
            "columns": {"messages": "messages"}, "tags": tags,
        }
    with open(os.path.join(folder, "dataset_info.json"), "w", encoding="utf-8") as file:
        json.dump(described, file, indent=1)
    return folder, numbers


def arguments(run, folder, numbers, max_steps, device, dtype):
    """Returns the arguments of a run of LLaMA-Factory."""
    job, train, lora = run.job, run.job["train"], run.job["lora"]
    told = {
        "model_name_or_path": job["base"]["path"], "stage": "sft", "do_train": True,
        "finetuning_type": "lora", "lora_rank": lora["r"], "lora_alpha": lora["alpha"],
        "lora_dropout": lora.get("dropout", 0.0),
        "lora_target": ",".join(lora.get("target_modules") or PROJECTIONS),
        "dataset_dir": folder, "dataset": "train", "cutoff_len": train["max_length"],
        # The last answer is the one that was judged.
        "mask_history": True, "preprocessing_num_workers": 1, "overwrite_cache": True,
        "output_dir": run.output, "max_steps": max_steps,
        "per_device_train_batch_size": train["batch_size"],
        "gradient_accumulation_steps": train["grad_accum"], "learning_rate": train["lr"],
        "lr_scheduler_type": "linear", "seed": train["seed"], "logging_steps": 1,
        "save_steps": train["save_every"], "save_total_limit": 2, "report_to": "none",
        "disable_tqdm": True, "use_cpu": device == "cpu", "bf16": dtype == "torch.bfloat16",
        "fp16": dtype == "torch.float16",
    }
    if "eval" in numbers:
        told |= {"eval_dataset": "eval", "do_eval": True,
                 "per_device_eval_batch_size": train["batch_size"]}
    if job["method"] == "qlora":
        told |= {"quantization_bit": 4, "quantization_method": "bnb"}
    if checkpoint_to_resume(job) is not None:
        told["resume_from_checkpoint"] = checkpoint_to_resume(job)
    return told


def train(run):
    """Does a job."""
    import lodestar_torch
    from llamafactory.extras.env import VERSION
    from llamafactory.train.tuner import run_exp

    device, dtype = lodestar_torch.device_and_precision(run.job)
    run.environment(
        trainer="llama-factory", version=VERSION, device=device, precision=str(dtype))
    # The base must have a chat template, from which its form of conversations is taken.
    lodestar_torch.tokenizer_of(run.job)
    folder, numbers = write_dataset(run)
    max_steps = steps_of(run.job, numbers["train"])
    callback = lodestar_torch.followed(run, max_steps)
    run.tell("ready", examples=numbers["train"], held_out=numbers.get("eval", 0),
             max_steps=max_steps)
    told = arguments(run, folder, numbers, max_steps, device, str(dtype))
    run_exp(told, callbacks=[callback])
    if callback.code is not None and callback.step < max_steps:
        run.stop(callback.code, callback.step)
    run.finish(callback.step, peak_mb=lodestar_torch.peak_mb())


if __name__ == "__main__":
    main(train)
