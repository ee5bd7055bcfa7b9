"""What the trainers on torch and transformers share: bases, examples as tokens, and progress."""

import math
import os

from lodestar_contract import PROJECTIONS, Failure, checkpoint_to_resume, read_lines, steps_of

IGNORED = -100


def device_and_precision(job):
    """Returns the device, and the kind of numbers that the base is computed in."""
    import torch

    if not torch.cuda.is_available():
        return "cpu", torch.float32
    limit = job.get("limits", {}).get("gpu_mem_mb")
    if limit:
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit * 1e6 / whole), 0)
    # Cards before Ampere have no bfloat16 of their own.
    has_bfloat = torch.cuda.get_device_capability(0)[0] >= 8
    return "cuda", torch.bfloat16 if has_bfloat else torch.float16


def peak_mb():
    """Returns the memory at its peak: of the card where there is one, else of the process."""
    import resource

    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_reserved() / 1e6)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def tokenizer_of(job):
    """Opens the tokenizer of the base."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["base"]["path"], local_files_only=True)
    if not tokenizer.chat_template:
        raise Failure(2, "the base has no chat template; use one that was made for conversations")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def base_of(job, dtype, device, quantised=False):
    """Opens the base; `quantised` in blocks of 4 bits."""
    from transformers import AutoModelForCausalLM

    options = {"dtype": dtype, "local_files_only": True}
    if quantised:
        from transformers import BitsAndBytesConfig

        if device != "cuda":
            raise Failure(2, "qlora needs a graphics card here; take lora, or the trainer embedded")
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        options["device_map"] = {"": 0}
    model = AutoModelForCausalLM.from_pretrained(job["base"]["path"], **options)
    return model if quantised else model.to(device)


def lora_of(job):
    """Returns the adapter's shape for peft."""
    from peft import LoraConfig

    lora = job["lora"]
    return LoraConfig(
        task_type="CAUSAL_LM", r=lora["r"], lora_alpha=lora["alpha"], bias="none",
        lora_dropout=lora.get("dropout", 0.0),
        target_modules=list(lora.get("target_modules") or PROJECTIONS))


def encode(tokenizer, example, max_length):
    """Returns the tokens of an example and of its labels: of the last answer alone. None where the
    template writes its beginning in another way than the whole, or where it is too long."""
    messages, tools = example["messages"], example.get("tools")
    try:
        whole = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
        begin = tokenizer.apply_chat_template(
            messages[:-1], tools=tools, tokenize=False, add_generation_prompt=True)
    except Exception:  # pylint: disable=broad-except
        # A template refuses an order of roles in words of its own.
        return None
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    prompt = tokenizer(begin, add_special_tokens=False)["input_ids"]
    is_beginning = whole.startswith(begin) and ids[:len(prompt)] == prompt
    if not is_beginning or len(ids) <= len(prompt) or len(ids) > max_length:
        return None
    labels = [IGNORED] * len(prompt) + ids[len(prompt):]
    return {"input_ids": ids, "labels": labels}


def examples_of(run, tokenizer):
    """Returns the encoded examples to learn, those held out, and the number left out."""
    job = run.job
    max_length = job["train"]["max_length"]
    encoded = [encode(tokenizer, it, max_length) for it in read_lines(job["dataset"]["train"])]
    train = [it for it in encoded if it is not None]
    left_out = len(encoded) - len(train)
    if not train:
        raise Failure(3, f"all {left_out} examples are longer than {max_length} tokens, or their "
                         "form does not fit the base's chat template")
    held_out = []
    if job["dataset"].get("eval"):
        encoded = [encode(tokenizer, it, max_length) for it in read_lines(job["dataset"]["eval"])]
        held_out = [it for it in encoded if it is not None]
    return train, held_out, left_out


def counts(model):
    """Returns the numbers of weights that are trained, and of all."""
    trainable = sum(it.numel() for it in model.parameters() if it.requires_grad)
    return trainable, sum(it.numel() for it in model.parameters())


def followed(run, max_steps):
    """Returns a callback for trainers of transformers that keeps the contract."""
    from transformers import TrainerCallback

    class Followed(TrainerCallback):
        """Tells of steps and checkpoints, and stops with a checkpoint when that is asked for."""

        code = None
        step = 0

        def on_train_begin(self, args, state, control, **kwargs):
            run.is_learning = True

        def on_step_end(self, args, state, control, **kwargs):
            self.step = state.global_step
            self.code = run.reason_to_stop()
            control.should_log = True
            if self.code is not None and state.global_step < max_steps:
                control.should_save = True
                control.should_training_stop = True
            return control

        def on_log(self, args, state, control, logs=None, **kwargs):
            logs = logs or {}
            if "loss" in logs:
                run.progress(state.global_step, max_steps, float(logs["loss"]),
                             lr=logs.get("learning_rate"), peak_mb=peak_mb())
            elif "eval_loss" in logs:
                loss = float(logs["eval_loss"])
                if math.isfinite(loss):
                    run.tell("eval", step=state.global_step, loss=loss)

        def on_save(self, args, state, control, **kwargs):
            folder = os.path.join(args.output_dir, f"checkpoint-{state.global_step}")
            if os.path.isdir(folder) and state.global_step > 0:
                run.tell("checkpoint", step=state.global_step, path=folder)

    return Followed()


__all__ = [
    "IGNORED", "Failure", "base_of", "checkpoint_to_resume", "counts", "device_and_precision",
    "examples_of", "followed", "lora_of", "peak_mb", "steps_of", "tokenizer_of",
]
