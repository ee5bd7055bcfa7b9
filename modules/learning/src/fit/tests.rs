use serde_json::json;

use super::*;

/// Returns the sizes of the models that were measured.
fn sizes(name: &str) -> Sizes {
    let config = match name {
        // As Qwen2.5-0.5B, Llama-3.2-1B, Llama-3.2-3B and Llama-2-7B.
        "0.5B" => json!({
            "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
            "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151_936,
            "tie_word_embeddings": true,
        }),
        "1B" => json!({
            "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
            "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128_256,
            "tie_word_embeddings": true,
        }),
        "3B" => json!({
            "hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24,
            "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128_256,
            "tie_word_embeddings": true,
        }),
        // As SmolLM2-135M.
        "0.1B" => json!({
            "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
            "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49_152,
            "tie_word_embeddings": true,
        }),
        _ => json!({
            "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 32, "intermediate_size": 11_008, "vocab_size": 32_000,
        }),
    };
    Sizes::of(&config).expect("it has sizes")
}

fn work(method: Method, tokens: u64) -> Work {
    Work { method, tokens, batch: 1, rank: 16 }
}

#[test]
fn weights_are_counted() {
    for (name, millions) in [("0.5B", 494), ("1B", 1_236), ("3B", 3_213), ("7B", 6_738)] {
        let counted = sizes(name).parameters() / 1_000_000;
        assert!(counted.abs_diff(millions) <= millions / 100, "{name}: {counted}");
    }
}

/// Memory that the allocator of a card took in measured runs: batches of one, rank 16 on all
/// projections, gradient checkpointing.
#[test]
fn the_prediction_is_near_what_was_measured() {
    use Method::{Lora, Qlora};
    for (name, method, tokens, measured) in [
        ("0.5B", Lora, 512, 2_292),
        ("0.5B", Lora, 1_024, 3_386),
        ("0.5B", Qlora, 512, 2_054),
        ("0.5B", Qlora, 1_024, 3_088),
        ("1B", Lora, 512, 3_608),
        ("1B", Qlora, 512, 2_342),
        ("1B", Qlora, 1_024, 3_344),
        ("3B", Lora, 512, 7_732),
        ("3B", Qlora, 512, 4_164),
        ("7B", Lora, 512, 13_930),
        ("7B", Qlora, 512, 5_084),
    ] {
        let predicted = needed_mb(&sizes(name), &work(method, tokens), Device::Card);
        let difference = predicted as f64 / f64::from(measured) - 1.0;
        assert!(difference.abs() < 0.12, "{name} {method:?} {tokens}: {predicted} for {measured}");
    }
}

/// Memory of a process of `trl` in measured runs on a processor.
#[test]
fn the_prediction_for_a_machine_is_near_what_was_measured() {
    for (tokens, measured) in [(170, 2_129), (330, 2_599)] {
        let work = Work { rank: 8, ..work(Method::Lora, tokens) };
        let predicted = needed_mb(&sizes("0.1B"), &work, Device::Machine);
        let difference = predicted as f64 / f64::from(measured) - 1.0;
        assert!(difference.abs() < 0.1, "{tokens}: {predicted} for {measured}");
    }
}

#[test]
fn a_card_of_four_gigabytes_takes_what_it_took() {
    use Method::{Lora, Qlora};
    // Processes that were held to 3.5 GiB of a card did the same.
    let memory = Memory::Card { name: Some("NVIDIA T600".to_owned()), mb: Some(4_294) };
    for (name, method, tokens, fits) in [
        ("0.5B", Lora, 512, true),
        ("0.5B", Lora, 1_024, true),
        ("0.5B", Qlora, 1_024, true),
        ("1B", Lora, 512, true),
        ("1B", Lora, 1_024, false),
        ("1B", Qlora, 1_024, true),
        ("3B", Lora, 512, false),
        ("3B", Qlora, 512, false),
        ("7B", Qlora, 512, false),
    ] {
        let fit = Fit::of(&sizes(name), &work(method, tokens), &memory);
        assert_eq!(fit.fits, fits, "{name} {method:?} {tokens}: {fit:?}");
        assert_eq!(fit.remedies.is_empty(), fits);
    }
    let fit = Fit::of(&sizes("1B"), &work(Lora, 1_024), &memory);
    assert_eq!(fit.remedies, ["--max-length 512", "--method qlora", "a smaller base"]);
    let fit = Fit::of(&sizes("7B"), &work(Lora, 1_024), &memory);
    assert_eq!(fit.remedies, ["a smaller base"]);
    let fit = Fit::of(&sizes("0.5B"), &work(Lora, 512), &memory);
    let sentence = "0.5B LoRA at 512 tokens needs about 2.4 GB; this card has 4.3 GB";
    assert_eq!(fit.sentence(), sentence);
}

#[test]
fn a_machine_needs_more_than_a_card_and_longer_texts_more() {
    let machine = |tokens, batch| {
        let work = Work { batch, ..work(Method::Lora, tokens) };
        needed_mb(&sizes("0.5B"), &work, Device::Machine)
    };
    assert!(machine(512, 1) > needed_mb(&sizes("0.5B"), &work(Method::Lora, 512), Device::Card));
    assert!(machine(1_024, 1) > machine(512, 1));
    assert!(machine(512, 4) > machine(512, 1));
    let little = Memory::Machine { free_mb: Some(2_000) };
    let fit = Fit::of(&sizes("0.5B"), &work(Method::Lora, 512), &little);
    assert!(!fit.fits);
    assert!(fit.sentence().ends_with("this machine has 2.0 GB free"), "{}", fit.sentence());
    // What is not known refuses nothing.
    let unknown = Memory::Card { name: None, mb: None };
    let fit = Fit::of(&sizes("7B"), &work(Method::Lora, 2_048), &unknown);
    assert!(fit.fits, "{fit:?}");
}

#[test]
fn a_base_that_cannot_be_trained_is_named() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let read = |strategy| Sizes::read(folder.path(), strategy);
    assert_eq!(read(Strategy::Trl), Err(BaseError::NoSizes));
    let write = |config: Value| {
        fs::write(folder.path().join("config.json"), config.to_string()).expect("it is written");
    };
    write(json!({"model_type": "gemma3"}));
    assert_eq!(read(Strategy::Trl), Err(BaseError::Architecture("gemma3".to_owned())));
    write(json!({"model_type": "llama", "hidden_size": 8}));
    assert_eq!(read(Strategy::Trl), Err(BaseError::NoSizes));
    write(json!({
        "model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "vocab_size": 32,
        "num_hidden_layers": 2, "intermediate_size": 16,
    }));
    assert!(read(Strategy::Trl).is_ok());
    let file = folder.path().join("config.json");
    // One that is far too large is not read, nor is what is no file.
    fs::File::options().write(true).open(&file).and_then(|it| it.set_len(1 << 40)).expect("it is");
    assert_eq!(read(Strategy::Trl), Err(BaseError::NoSizes));
    fs::remove_file(&file).and_then(|()| fs::create_dir(&file)).expect("it is replaced");
    assert_eq!(read(Strategy::Trl), Err(BaseError::NoSizes));
    fs::remove_dir(&file).and_then(|()| fs::write(&file, "{}")).expect("it is replaced");
    let error = Sizes::read(&file, Strategy::PeftPlain).expect_err("it is a file").to_string();
    assert!(error.starts_with("peft-plain needs a base that is a folder"), "{error}");
}
