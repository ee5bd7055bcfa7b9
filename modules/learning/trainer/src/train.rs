//! A run: from a job to an adapter.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{
    adapter,
    base::{self, Base},
    checkpoint::{self, Moment},
    events::Events,
    examples::{self, Example},
    failure::{Failure, Result},
    job::{Job, Method},
    model::{Adapter, Model, Outcome, Tensors, Wanted},
    optimiser::{self, Optimiser},
    predict::{self, Prediction},
    random::Random,
};

/// Runs a job until its end, or until `stop` is set.
///
/// # Errors
///
/// With the class that the exit code tells; a run that stopped or reached a limit has written a
/// checkpoint.
pub fn run(job: &Job, events: &mut Events<'_>, stop: &AtomicBool) -> Result<()> {
    let begin = Instant::now();
    events.tell("start", json!({"job_id": job.job_id, "pid": std::process::id()}))?;
    let mut run = Run::prepare(job, events, begin)?;
    if run.moment.step == 0 {
        run.evaluate(events)?;
    }
    while run.moment.step < run.steps {
        run.step(events)?;
        let step = run.moment.step;
        let over = run.over(stop);
        if over.is_some() || step.is_multiple_of(job.train.save_every) || step == run.steps {
            run.save(events)?;
        }
        if let Some(failure) = over.filter(|_| step < run.steps) {
            events.tell("stopped", json!({"step": step, "max_steps": run.steps}))?;
            return Err(failure);
        }
        let every = job.train.eval_every;
        if step == run.steps || (every > 0 && step.is_multiple_of(every)) {
            run.evaluate(events)?;
        }
    }
    run.finish(events)
}

/// A run that has begun.
struct Run<'a> {
    job: &'a Job,
    base: Base,
    train: Vec<Example>,
    held_out: Vec<Example>,
    steps: usize,
    optimiser: Optimiser,
    moment: Moment,
    order: Order,
    begin: Instant,
}

impl<'a> Run<'a> {
    fn prepare(job: &'a Job, events: &mut Events<'_>, begin: Instant) -> Result<Self> {
        let base = open(job)?;
        events.tell(
            "env",
            json!({
                "trainer": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"),
                "device": "cpu", "precision": "fp32", "threads": job.threads,
                "base_sha256": base.sha256, "kinds": base.kinds,
                "architecture": base.model.shape.architecture.name(),
            }),
        )?;
        let data = match base::digest_file(&job.dataset.train) {
            Ok(digest) => digest,
            Err(failure) => return Err(Failure::data(failure.to_string())),
        };
        if job.dataset.sha256.as_ref().is_some_and(|it| !it.eq_ignore_ascii_case(&data)) {
            return Err(Failure::data(format!(
                "the data set has the digest {data} and the job names another; it was changed: \
                 make the job anew"
            )));
        }
        let length = job.train.max_length;
        let (train, left_out) = examples::read(&job.dataset.train, &base.chat, length)?;
        let held_out = match &job.dataset.eval {
            Some(path) => examples::read(path, &base.chat, length)?.0,
            None => Vec::new(),
        };
        let steps = job.steps(train.len());
        let identity = job.identity(&base.sha256, &data, steps);
        let identity = base::hex(&Sha256::digest(identity.as_bytes()));
        let resumed = match &job.resume_from {
            Some(path) => checkpoint::load(path, &identity)?,
            None => None,
        };
        let tensors = adapter::create(&base.model.shape, &job.lora, job.train.seed)?;
        let (optimiser, moment) = match resumed {
            Some((optimiser, moment)) => (optimiser, moment),
            None => (Optimiser::new(&tensors)?, Moment { step: 0, tokens: 0, identity }),
        };
        let order = Order::new(job.train.seed, train.len());
        let run = Self { job, base, train, held_out, steps, optimiser, moment, order, begin };
        let prediction = run.predict()?;
        let ready = json!({
            "trainable": prediction.trainable, "total": prediction.total,
            "predicted_s": prediction.predicted_s, "predicted_mb": prediction.predicted_mb,
            "examples": run.train.len(), "held_out": run.held_out.len(), "left_out": left_out,
            "step": run.moment.step, "max_steps": run.steps,
        });
        events.tell("ready", ready)?;
        predict::check(job, &prediction)?;
        Ok(run)
    }

    fn predict(&self) -> Result<Prediction> {
        let job = self.job;
        let mut by_length: Vec<&Example> = self.train.iter().collect();
        by_length.sort_by_key(|it| it.ids.len());
        let all = self.train.iter().chain(&self.held_out);
        let longest = all.clone().map(|it| it.ids.len()).max().unwrap_or(1);
        let learnt = all.map(Example::learnt).max().unwrap_or(1);
        let predicted_mb = predict::memory_mb(&self.base, &job.lora, job.threads, longest, learnt);
        let mut prediction = Prediction {
            trainable: adapter::trainable(&self.base.model.shape, &job.lora),
            total: self.base.parameters,
            predicted_s: 0.0,
            predicted_mb,
        };
        predict::check(job, &prediction)?;
        let middle = by_length[by_length.len() / 2];
        let each = predict::seconds_a_token(&self.base, &self.adapter()?, middle)?;
        let tokens = |examples: &[Example]| examples.iter().map(|it| it.ids.len()).sum::<usize>();
        let mean = tokens(&self.train) as f64 / self.train.len() as f64;
        let left = (self.steps - self.moment.step.min(self.steps)) * job.per_step();
        // An evaluation goes forward once, a step forward twice and back once.
        let evaluations = 2 + self.steps.checked_div(job.train.eval_every).unwrap_or(0);
        let evaluated = (tokens(&self.held_out) * evaluations) as f64 / 3.5;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let side_by_side = job.threads.min(cores).min(job.per_step()).max(1) as f64;
        let seconds = each * (mean * left as f64 + evaluated) / side_by_side;
        prediction.predicted_s = (seconds * 10.0).ceil() / 10.0;
        Ok(prediction)
    }

    fn adapter(&self) -> Result<Adapter> {
        let scale = f64::from(self.job.lora.alpha) / self.job.lora.r as f64;
        Ok(Adapter { scale, tensors: self.optimiser.tensors()? })
    }

    fn step(&mut self, events: &mut Events<'_>) -> Result<()> {
        let (job, step) = (self.job, self.moment.step);
        let chosen: Vec<&Example> = (0..job.per_step())
            .map(|index| self.order.at(step * job.per_step() + index))
            .map(|index| &self.train[index])
            .collect();
        let tokens: usize = chosen.iter().map(|it| it.learnt()).sum();
        let weights: f64 = chosen.iter().map(|it| it.weight * it.learnt() as f64).sum();
        let adapter = self.adapter()?;
        let found = learn(&self.base.model, &adapter, &chosen, weights, job.threads)?;
        let rate = optimiser::rate(&job.train, step, self.steps);
        let norm = self.optimiser.step(&found.gradients, rate, &job.train)?;
        if !(found.loss.is_finite() && norm.is_finite()) {
            return Err(Failure::other(format!(
                "the loss of step {} is no number; take a lower `train.lr`",
                step + 1
            )));
        }
        self.moment.step += 1;
        self.moment.tokens += tokens as u64;
        let progress = json!({
            "step": self.moment.step, "max_steps": self.steps, "loss": found.loss / weights,
            "lr": rate, "grad_norm": norm, "tokens": self.moment.tokens,
            "peak_mb": predict::peak_mb(),
            "elapsed_s": self.begin.elapsed().as_secs_f64(),
        });
        events.tell("progress", progress)
    }

    /// Returns the reason for which the run ends before its last step.
    fn over(&self, stop: &AtomicBool) -> Option<Failure> {
        if stop.load(Ordering::Relaxed) {
            return Some(Failure::stopped("stopped as asked; resume from the checkpoint"));
        }
        let limits = &self.job.limits;
        if limits.wall_s.is_some_and(|limit| self.begin.elapsed().as_secs() >= limit) {
            return Some(Failure::limit("`limits.wall_s` was reached; raise it and resume"));
        }
        let peak = predict::peak_mb().unwrap_or(0);
        if limits.memory_mb.is_some_and(|limit| peak > limit) {
            return Some(Failure::memory(format!(
                "the process took {peak} MB, more than `limits.memory_mb`; take a smaller \
                 max_length or fewer threads"
            )));
        }
        None
    }

    fn save(&self, events: &mut Events<'_>) -> Result<()> {
        let path = checkpoint::save(&self.job.output_dir, &self.optimiser, &self.moment)?;
        events.tell("checkpoint", json!({"step": self.moment.step, "path": path}))
    }

    fn evaluate(&self, events: &mut Events<'_>) -> Result<()> {
        if self.held_out.is_empty() {
            return Ok(());
        }
        let (loss, tokens, hits) =
            held_out(&self.base.model, Some(&self.adapter()?), &self.held_out)?;
        let told = json!({
            "step": self.moment.step, "loss": loss, "tokens": tokens,
            "top1": hits as f64 / tokens.max(1) as f64,
        });
        events.tell("eval", told)
    }

    fn finish(&self, events: &mut Events<'_>) -> Result<()> {
        let tensors = self.optimiser.tensors()?;
        let saved = adapter::save(self.job, &self.base.model.shape, &self.base.sha256, &tensors)?;
        events.tell(
            "saved",
            json!({
                "path": saved.folder, "sha256": saved.sha256,
                "gguf": saved.gguf, "gguf_sha256": saved.gguf_sha256,
            }),
        )?;
        let done = json!({
            "step": self.moment.step, "tokens": self.moment.tokens,
            "elapsed_s": self.begin.elapsed().as_secs_f64(), "peak_mb": predict::peak_mb(),
        });
        events.tell("done", done)
    }
}

/// Opens the base of a job and checks that its method fits.
///
/// # Errors
///
/// When the base is not the one of the job, or the method is for another kind of base.
pub fn open(job: &Job) -> Result<Base> {
    let base = Base::open(&job.base.path)?;
    base.expect(job.base.sha256.as_deref())?;
    match (job.method, base.is_quantised) {
        (Method::Lora, true) => Err(Failure::job(format!(
            "the base is quantised ({}): write `\"method\": \"qlora\"`",
            base.kinds
        ))),
        (Method::Qlora, false) => Err(Failure::job(format!(
            "the base is not quantised ({}): write `\"method\": \"lora\"`, or give a GGUF \
             that is",
            base.kinds
        ))),
        _ => Ok(base),
    }
}

/// Returns the mean loss of examples, the number of their learnt tokens, and of those that were
/// the likeliest.
///
/// # Errors
///
/// When a computation fails.
pub fn held_out(
    model: &Model,
    adapter: Option<&Adapter>,
    examples: &[Example],
) -> Result<(f64, usize, usize)> {
    let (mut loss, mut tokens, mut hits) = (0.0, 0, 0);
    for example in examples {
        let found = model.learn(adapter, &example.ids, &example.targets(), None)?;
        loss += found.loss;
        hits += found.hits;
        tokens += example.learnt();
    }
    Ok((loss / tokens.max(1) as f64, tokens, hits))
}

/// Learns from examples side by side; sums are made in their order, whatever the threads.
fn learn(
    model: &Model,
    adapter: &Adapter,
    examples: &[&Example],
    weights: f64,
    threads: usize,
) -> Result<Outcome> {
    let one = |example: &Example| {
        let gradient = Some((Wanted::Adapter, example.weight / weights));
        model.learn(Some(adapter), &example.ids, &example.targets(), gradient)
    };
    let mut sum = Outcome::default();
    for group in examples.chunks(threads) {
        let found: Vec<_> = if let [example] = group {
            vec![one(example)]
        } else {
            std::thread::scope(|scope| {
                let workers: Vec<_> =
                    group.iter().map(|example| scope.spawn(|| one(example))).collect();
                let lost = || candle_core::Error::Msg("a worker ended early".into());
                workers.into_iter().map(|it| it.join().unwrap_or_else(|_| Err(lost()))).collect()
            })
        };
        for (outcome, example) in found.into_iter().zip(group) {
            let outcome = outcome?;
            sum.loss += outcome.loss * example.weight;
            sum.hits += outcome.hits;
            add(&mut sum.gradients, outcome.gradients)?;
        }
    }
    Ok(sum)
}

/// Adds gradients to a sum.
pub(crate) fn add(sum: &mut Tensors, gradients: Tensors) -> Result<()> {
    for (name, gradient) in gradients {
        let total = match sum.remove(&name) {
            Some(old) => (old + gradient)?,
            None => gradient,
        };
        sum.insert(name, total);
    }
    Ok(())
}

/// Order of the examples: a function of the seed and the epoch alone.
struct Order {
    seed: u64,
    count: usize,
    epoch: Option<(usize, Vec<usize>)>,
}

impl Order {
    const fn new(seed: u64, count: usize) -> Self {
        Self { seed, count, epoch: None }
    }

    /// Returns the example at a place of the endless row of all epochs.
    fn at(&mut self, place: usize) -> usize {
        let epoch = place / self.count;
        if !matches!(&self.epoch, Some((known, _)) if *known == epoch) {
            let seed = self.seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ epoch as u64;
            self.epoch = Some((epoch, Random::new(seed).order(self.count)));
        }
        self.epoch.as_ref().map_or(0, |(_, order)| order[place % self.count])
    }
}
