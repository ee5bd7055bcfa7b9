//! The programs at work, by the interpreter of the machine: what each needs beyond it is stood in
//! for by files beside the programs.

use std::{os::unix::fs::PermissionsExt as _, sync::atomic::Ordering};

use serde_json::{Value, json};

use super::*;
use crate::run::{Base, Bounds, Control, Examples, Job, News, Outcome, Report, run};

/// A converter that writes what it was given, as the trainer does.
const CONVERTER: &str = r#"#!/bin/sh
[ "$1 $3 $5" = "convert --base --out" ] || exit 1
[ -e "$4/refused" ] && {
    echo '{"v":1,"seq":0,"event":"error","code":2,"message":"DoRA cannot be converted"}'; exit 2; }
cat "$2/adapter_model.safetensors" > "$6"
"#;

/// A run in a folder of its own.
struct Stage {
    folder: tempfile::TempDir,
    job: Job,
    python: PathBuf,
}

impl Stage {
    /// Makes one; there is none on a machine without Python.
    fn new() -> Option<Self> {
        let python = in_path(std::env::var_os("PATH").as_deref(), "python3")?;
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("base")).expect("it is made");
        let config = json!({
            "model_type": "qwen3", "hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 32,
            "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 12,
        });
        let line = json!({"messages": [
            {"role": "user", "content": "canary question"},
            {"role": "assistant", "content": "canary answer"},
        ]});
        for (name, text) in [
            ("base/config.json", config.to_string()),
            ("train.jsonl", format!("{line}\n").repeat(10)),
            ("converter", CONVERTER.to_owned()),
        ] {
            fs::write(path(name), text).expect("it is written");
        }
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(path("converter"), mode).expect("it is set");
        let dataset = Examples {
            train: path("train.jsonl"),
            eval: None,
            sha256: None,
            format: "messages".to_owned(),
        };
        let job = Job {
            job_id: format!("run-{}", uuid::Uuid::now_v7()),
            base: Base { path: path("base"), sha256: None },
            dataset,
            ..crate::run::job::tests::job()
        };
        Some(Self { folder, job, python })
    }

    fn trainer(&self, strategy: Strategy) -> Python {
        let program = Some(self.folder.path().join("converter"));
        let converter = Embedded { program, ..Embedded::default() };
        Python { strategy, interpreter: Some(self.python.clone()), converter }
    }

    /// Does a job, and asks it to stop after a step.
    fn report(&self, trainer: &dyn Trainer, job: &Job, stop_at: u64) -> Report {
        let control = Control::default();
        let mut news = |news: News<'_>| {
            if let News::Told(told) = news
                && told.step >= stop_at
            {
                control.stop.store(true, Ordering::Release);
            }
        };
        let report = run(trainer, job, self.folder.path(), Bounds::default(), &control, &mut news);
        report.expect("it is watched").expect("it ends")
    }

    /// Checks how a job ends, and that no text of an example is told.
    fn ends(&self, trainer: &dyn Trainer, job: &Job, outcome: Outcome, words: &str) {
        let report = self.report(trainer, job, u64::MAX);
        let message = &report.ending.message;
        assert_eq!(report.ending.outcome, outcome, "{message}");
        assert!(message.contains(words), "{words}: {message}");
        for file in ["events.jsonl", "trainer.log"] {
            let text = String::from_utf8_lossy(&self.read(file)).into_owned();
            assert!(!text.contains("canary"), "{file}: {text}");
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).expect("it is written");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path().join("attempt-1").join(name)).expect("it was written")
    }
}

#[test]
fn one_that_learns_nothing_keeps_the_contract() {
    let Some(stage) = Stage::new() else { return };
    let report = stage.report(&stage.trainer(Strategy::Fake), &stage.job, u64::MAX);
    let told = &report.ending.told;
    assert_eq!(report.ending.outcome, Outcome::Done, "{report:?}");
    assert_eq!((told.step, told.max_steps, told.faults), (10, Some(10), 0));
    assert!(told.loss.is_some_and(|loss| loss < 3.0) && told.eval_loss.is_some());
    // Two layers with seven projections of two matrices each, all of zeros.
    let weights = stage.read("output/adapter_model.safetensors");
    let length = u64::from_le_bytes(weights[..8].try_into().expect("eight bytes"));
    let (header, numbers) = weights[8..].split_at(usize::try_from(length).expect("it is small"));
    let header: Value = serde_json::from_slice(header).expect("it is JSON");
    assert_eq!(header.as_object().map(serde_json::Map::len), Some(2 * 7 * 2 + 1));
    assert!(numbers.iter().all(|byte| *byte == 0) && !numbers.is_empty());
    assert_eq!(stage.read("output/adapter.gguf"), weights);
    let config = stage.read("output/adapter_config.json");
    let config: Value = serde_json::from_slice(&config).expect("it is JSON");
    assert_eq!((&config["peft_type"], &config["r"]), (&json!("LORA"), &json!(8)));
    // The same job gives the same bytes.
    let again = Stage::new().expect("there is Python");
    again.report(&again.trainer(Strategy::Fake), &again.job, u64::MAX);
    assert_eq!(again.read("output/adapter_model.safetensors"), weights);
}

#[test]
fn it_stops_with_a_checkpoint_and_goes_on_from_it() {
    let Some(stage) = Stage::new() else { return };
    let trainer = stage.trainer(Strategy::Fake);
    let mut long = stage.job.clone();
    long.train.max_steps = Some(10_000_000);
    long.train.save_every = 1_000_000;
    let report = stage.report(&trainer, &long, 1);
    assert_eq!(report.ending.outcome, Outcome::Stopped, "{report:?}");
    let checkpoint = report.ending.resumable().expect("it can be resumed").clone();
    assert_eq!(checkpoint.step, report.ending.told.step);
    let mut rest = Job { resume_from: Some(checkpoint.path), ..long };
    rest.train.max_steps = Some(checkpoint.step + 5);
    let report = stage.report(&trainer, &rest, u64::MAX);
    assert_eq!(report.ending.outcome, Outcome::Done, "{report:?}");
    assert_eq!(report.ending.told.step, checkpoint.step + 5);
    rest.resume_from = Some("/nowhere".into());
    stage.ends(&trainer, &rest, Outcome::BadJob, "the checkpoint to go on from is not there");
}

#[test]
fn faults_are_told_in_sentences_without_text_of_examples() {
    let Some(stage) = Stage::new() else { return };
    let trainer = stage.trainer(Strategy::Fake);
    let check = |job: &Job, outcome: Outcome, words: &str| {
        stage.ends(&trainer, job, outcome, words);
    };
    let with = |train: &str| {
        let mut job = stage.job.clone();
        job.dataset.train = stage.folder.path().join(train);
        job
    };
    stage.write("cut.jsonl", "\n{\"messages\": [{\"role\": \"user\", \"content\": \"canary");
    check(&with("cut.jsonl"), Outcome::Data, "cut.jsonl:2 is no conversation");
    let line = json!({"messages": [{"role": "user", "content": "canary"}]});
    stage.write("open.jsonl", &line.to_string());
    check(&with("open.jsonl"), Outcome::Data, "open.jsonl:1 is no conversation");
    stage.write("empty.jsonl", "\n");
    check(&with("empty.jsonl"), Outcome::Data, "there are no examples");
    check(&with("gone.jsonl"), Outcome::Data, "gone.jsonl cannot be read");
    let mut job = stage.job.clone();
    job.base.path = stage.folder.path().join("train.jsonl");
    check(&job, Outcome::BadJob, "must be a folder");
    let mut job = stage.job.clone();
    job.train.max_steps = None;
    job.train.epochs = None;
    check(&job, Outcome::BadJob, "neither train.max_steps nor train.epochs");
    let mut job = stage.job.clone();
    job.lora.target_modules = vec!["lm_head".to_owned()];
    check(&job, Outcome::BadJob, "lm_head");
    stage.write("base/refused", "");
    check(&stage.job, Outcome::BadJob, "cannot be converted: DoRA");
    stage.write("base/config.json", r#"{"model_type": "gemma3"}"#);
    check(&stage.job, Outcome::BadJob, "'gemma3' has no adapter for llama.cpp");
}

/// A trainer whose program finds packages that stand in for those that it imports.
struct WithPackages<'a> {
    trainer: Python,
    packages: &'a [(&'a str, &'a str)],
}

impl Trainer for WithPackages<'_> {
    fn name(&self) -> &'static str {
        self.trainer.name()
    }

    fn launch(&self, job: &Path) -> Result<Launch, RunError> {
        self.trainer.launch(job)
    }

    fn prepare(&self, folder: &Path) -> io::Result<()> {
        self.trainer.prepare(folder)?;
        for (name, text) in self.packages {
            fs::write(folder.join(FOLDER).join(name), text)?;
        }
        Ok(())
    }

    fn has_plain_messages(&self) -> bool {
        self.trainer.has_plain_messages()
    }
}

#[test]
fn what_libraries_do_becomes_an_exit_code_of_the_contract() {
    let Some(stage) = Stage::new() else { return };
    let check = |strategy, packages: &[(&str, &str)], outcome: Outcome, words: &str| {
        let trainer = WithPackages { trainer: stage.trainer(strategy), packages };
        stage.ends(&trainer, &stage.job, outcome, words);
    };
    let missing = "raise ModuleNotFoundError('canary', name='trl.x')";
    let words = "trl cannot be imported; `lodestar learning setup` installs it";
    check(Strategy::Trl, &[("trl.py", missing)], Outcome::Missing, words);
    let missing = "raise ImportError('canary', name='llamafactory')";
    let words = "llamafactory cannot be imported";
    check(Strategy::LlamaFactory, &[("llamafactory.py", missing)], Outcome::Missing, words);
    let no_card = "class cuda:\n    is_available = staticmethod(lambda: False)\n";
    let words = "unsloth needs an NVIDIA card";
    check(Strategy::Unsloth, &[("torch.py", no_card)], Outcome::Missing, words);

    let raises = |error: &str| {
        format!(
            "class OutOfMemoryError(RuntimeError):\n    pass\n\n\n\
             class cuda:\n    @staticmethod\n    def is_available():\n        raise {error}\n"
        )
    };
    // What a library prints does not stand between the events.
    let peft = ("peft.py", "__version__ = '0'\nprint('{\"event\": \"done\"}')\n");
    for (error, outcome, words) in [
        ("OutOfMemoryError('canary')", Outcome::OutOfMemory, "the memory was not enough"),
        ("RuntimeError('CUDA out of memory: canary')", Outcome::OutOfMemory, "memory"),
        ("MemoryError('canary')", Outcome::OutOfMemory, "memory"),
        ("OSError(28, 'canary')", Outcome::Limit, "nothing more can be written"),
        ("KeyError('canary')", Outcome::Failed, "KeyError was raised; the log says where"),
    ] {
        let torch = raises(error);
        check(Strategy::PeftPlain, &[peft, ("torch.py", torch.as_str())], outcome, words);
    }
}
