"""The strategy `unsloth`: Unsloth's own kernels on an NVIDIA card, with TRL's trainer."""

from lodestar_contract import PROJECTIONS, Failure, main


def train(run):
    """Does a job."""
    import torch

    if not torch.cuda.is_available():
        raise Failure(6, "unsloth needs an NVIDIA card, and there is none; use trl or embedded")
    # It changes transformers and TRL while it is imported, so that it comes first.
    import lodestar_sft
    import lodestar_torch
    import unsloth

    device, dtype = lodestar_torch.device_and_precision(run.job)
    run.environment(
        trainer="unsloth", version=unsloth.__version__, device=device, precision=str(dtype))
    job, lora = run.job, run.job["lora"]
    model, _ = unsloth.FastLanguageModel.from_pretrained(
        model_name=job["base"]["path"], max_seq_length=job["train"]["max_length"], dtype=dtype,
        load_in_4bit=job["method"] == "qlora", local_files_only=True)
    model = unsloth.FastLanguageModel.get_peft_model(
        model, r=lora["r"], lora_alpha=lora["alpha"], lora_dropout=lora.get("dropout", 0.0),
        target_modules=list(lora.get("target_modules") or PROJECTIONS), bias="none",
        use_gradient_checkpointing="unsloth", random_state=job["train"]["seed"])
    tokenizer = lodestar_torch.tokenizer_of(job)
    lodestar_sft.learn(run, tokenizer, model, None, device, dtype)


if __name__ == "__main__":
    main(train)
