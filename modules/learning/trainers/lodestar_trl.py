"""The strategy `trl`: TRL's supervised training of an adapter of peft."""

from lodestar_contract import main
from lodestar_torch import base_of, device_and_precision, lora_of, tokenizer_of


def train(run):
    """Does a job."""
    import lodestar_sft
    import trl

    device, dtype = device_and_precision(run.job)
    run.environment(trainer="trl", version=trl.__version__, device=device, precision=str(dtype))
    tokenizer = tokenizer_of(run.job)
    model = base_of(run.job, dtype, device, quantised=run.job["method"] == "qlora")
    lodestar_sft.learn(run, tokenizer, model, lora_of(run.job), device, dtype)


if __name__ == "__main__":
    main(train)
