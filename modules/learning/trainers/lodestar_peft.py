"""The strategy `peft-plain`: torch, transformers and peft alone, with a loop of its own.

Examples are computed one at a time, without padding, and logits only for the tokens that are
learnt, so that memory depends on the longest example and not on the batch. The order of examples
is a function of the seed and of the number of the pass.
"""

import os
import random

from lodestar_contract import Failure, checkpoint_to_resume, main, steps_of
from lodestar_torch import IGNORED, base_of, counts, device_and_precision, examples_of, lora_of
from lodestar_torch import peak_mb, tokenizer_of

STATE = "trainer_state.pt"


class Loop:
    """The steps of a job."""

    def __init__(self, run, model, examples, max_steps, device, dtype):
        import torch

        self.run, self.model, self.examples = run, model, examples
        self.max_steps, self.device, self.dtype = max_steps, device, dtype
        self.step, self.kept = 0, []
        self.weights = [it for it in model.parameters() if it.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.weights, lr=run.job["train"]["lr"], weight_decay=0.0)
        self.scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)

    def rows(self, example):
        """Computes the sum of the losses of an example's tokens that are learnt."""
        import torch

        ids = torch.tensor([example["input_ids"]], device=self.device)
        labels = example["labels"]
        # The token before one that is learnt foretells it.
        places = [it - 1 for it in range(1, len(labels)) if labels[it] != IGNORED]
        targets = torch.tensor([labels[it + 1] for it in places], device=self.device)
        places = torch.tensor(places, device=self.device)
        mixed = self.device == "cuda"
        with torch.autocast(self.device, dtype=self.dtype, enabled=mixed):
            logits = self.model(input_ids=ids, logits_to_keep=places, use_cache=False).logits
        return torch.nn.functional.cross_entropy(
            logits[0].float(), targets, reduction="sum"), len(targets)

    def chosen(self):
        """Returns the examples of the next step."""
        train, many = self.run.job["train"], len(self.examples)
        size = train["batch_size"] * train["grad_accum"]
        chosen = []
        for place in range(self.step * size, (self.step + 1) * size):
            order = list(range(many))
            random.Random(f"{train['seed']}-{place // many}").shuffle(order)
            chosen.append(self.examples[order[place % many]])
        return chosen

    def learn(self):
        """Takes a step, and returns its loss."""
        import torch

        train = self.run.job["train"]
        chosen = self.chosen()
        # The first token of a conversation is foretold by none.
        count = sum(sum(it != IGNORED for it in one["labels"][1:]) for one in chosen)
        rate = train["lr"] * (1.0 - self.step / self.max_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = 0.0
        for example in chosen:
            summed, _ = self.rows(example)
            self.scaler.scale(summed / count).backward()
            loss += float(summed.detach()) / count
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.run.progress(self.step, self.max_steps, loss, lr=rate, peak_mb=peak_mb())

    def evaluate(self, held_out):
        """Tells the loss on the examples that are held out."""
        import torch

        if not held_out:
            return
        self.model.eval()
        summed, count = 0.0, 0
        with torch.no_grad():
            for example in held_out:
                loss, rows = self.rows(example)
                summed, count = summed + float(loss), count + rows
        self.model.train()
        self.run.tell("eval", step=self.step, loss=summed / max(1, count))

    def checkpoint(self):
        """Writes a checkpoint, and keeps the last two."""
        import shutil

        import torch

        folder = os.path.join(self.run.output, f"checkpoint-{self.step}")
        whole = folder + ".part"
        shutil.rmtree(whole, ignore_errors=True)
        self.model.save_pretrained(whole)
        torch.save({
            "step": self.step, "weights": [it.detach().cpu() for it in self.weights],
            "optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
        }, os.path.join(whole, STATE))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(whole, folder)
        self.run.tell("checkpoint", step=self.step, path=folder)
        self.kept.append(folder)
        while len(self.kept) > 2:
            shutil.rmtree(self.kept.pop(0), ignore_errors=True)

    def resume(self, folder):
        """Goes on from a checkpoint."""
        import torch

        try:
            state = torch.load(os.path.join(folder, STATE), map_location="cpu", weights_only=True)
            for weight, kept in zip(self.weights, state["weights"], strict=True):
                with torch.no_grad():
                    weight.copy_(kept)
            self.optimiser.load_state_dict(state["optimiser"])
            self.scaler.load_state_dict(state["scaler"])
            torch.set_rng_state(state["random"])
            self.step = state["step"]
        except (OSError, KeyError, ValueError, RuntimeError):
            raise Failure(2, "the checkpoint is broken or of another job") from None


def train(run):
    """Does a job."""
    import peft
    import torch

    job = run.job
    if job["method"] == "qlora":
        raise Failure(2, "peft-plain knows no qlora; take lora, or the trainer trl or embedded")
    device, dtype = device_and_precision(job)
    run.environment(
        trainer="peft-plain", version=peft.__version__, device=device, precision=str(dtype))
    torch.manual_seed(job["train"]["seed"])
    tokenizer = tokenizer_of(job)
    examples, held_out, left_out = examples_of(run, tokenizer)
    max_steps = steps_of(job, len(examples))
    model = base_of(job, dtype, device)
    if device == "cuda":
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    model = peft.get_peft_model(model, lora_of(job))
    model.train()
    loop = Loop(run, model, examples, max_steps, device, dtype)
    resume = checkpoint_to_resume(job)
    if resume is not None:
        loop.resume(resume)
    trainable, total = counts(model)
    run.tell("ready", trainable=trainable, total=total, examples=len(examples),
             held_out=len(held_out), left_out=left_out, step=loop.step, max_steps=max_steps)
    if resume is None:
        loop.evaluate(held_out)
    run.is_learning = True
    while loop.step < max_steps:
        loop.learn()
        code = run.reason_to_stop() if loop.step < max_steps else None
        if code is not None or loop.step % job["train"]["save_every"] == 0:
            loop.checkpoint()
        if code is not None:
            run.stop(code, loop.step)
    loop.evaluate(held_out)
    model.save_pretrained(run.output)
    run.finish(loop.step, peak_mb=peak_mb())


if __name__ == "__main__":
    main(train)
