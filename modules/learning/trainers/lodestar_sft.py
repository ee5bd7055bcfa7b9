"""Training by TRL, for `trl` and `unsloth`, which differ in how they open the base."""

from lodestar_torch import checkpoint_to_resume, counts, examples_of, followed, peak_mb, steps_of


def learn(run, tokenizer, model, peft_config, device, dtype, **options):
    """Trains an adapter and writes it. `model` has one already where there is no `peft_config`."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    job, train = run.job, run.job["train"]
    examples, held_out, left_out = examples_of(run, tokenizer)
    max_steps = steps_of(job, len(examples))
    callback = followed(run, max_steps)
    config = SFTConfig(
        output_dir=run.output, max_steps=max_steps, seed=train["seed"], data_seed=train["seed"],
        per_device_train_batch_size=train["batch_size"],
        per_device_eval_batch_size=train["batch_size"],
        gradient_accumulation_steps=train["grad_accum"], learning_rate=train["lr"],
        lr_scheduler_type="linear", max_grad_norm=1.0, optim="adamw_torch",
        max_length=train["max_length"], packing=False, save_strategy="steps",
        save_steps=train["save_every"], save_total_limit=2, logging_steps=1, eval_strategy="no",
        report_to=[], disable_tqdm=True, push_to_hub=False, dataset_num_proc=None,
        use_cpu=device == "cpu", bf16=dtype == torch.bfloat16, fp16=dtype == torch.float16,
        gradient_checkpointing=device == "cuda", **options)
    trainer = SFTTrainer(
        model=model, args=config, processing_class=tokenizer, peft_config=peft_config,
        train_dataset=Dataset.from_list(examples),
        eval_dataset=Dataset.from_list(held_out) if held_out else None, callbacks=[callback])
    trainable, total = counts(trainer.model)
    run.tell("ready", trainable=trainable, total=total, examples=len(examples),
             held_out=len(held_out), left_out=left_out, max_steps=max_steps)
    if held_out and not job.get("resume_from"):
        trainer.evaluate()
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(job))
    if callback.code is not None and callback.step < max_steps:
        run.stop(callback.code, callback.step)
    if held_out:
        trainer.evaluate()
    trainer.model.save_pretrained(run.output)
    run.finish(callback.step, peak_mb=peak_mb())
