//! The card of a version: a README beside its files, with the metadata that Hugging Face reads. It
//! is written anew whenever gates, approvals or the deployment change.
//!
//! Names that people and programs gave are nothing but text on it.

mod curve;

use std::{
    fmt::{self, Write as _},
    fs, io,
    path::Path,
};

use module_sdk::Result;

pub(crate) use curve::Curve;

use crate::{
    dataset::{
        card::{class_name, day, markdown},
        summary::Summary,
    },
    registry::{Gate, Ledger, Version},
    run::{self, Run},
    versions::Versions,
};

/// File of the card, in the folder of a version.
const FILE: &str = "README.md";
/// Digits of a digest that are shown where all of them say no more.
const SHORT: usize = 12;

/// All that a card says.
struct Facts<'a> {
    version: &'a Version,
    alias: Option<&'static str>,
    run: Option<Run>,
    dataset: Option<Summary>,
    curve: Curve,
}

/// Returns the card of a version.
///
/// # Errors
///
/// When the database cannot be read.
pub(crate) fn card(versions: &Versions, ledger: &Ledger, version: &Version) -> Result<String> {
    let lineage = &version.lineage;
    let run = versions.store.read(|connection| run::load(connection, &lineage.run))?;
    // A card says what is known, also where the dataset is not.
    let dataset = versions.store.dataset(&lineage.dataset).ok();
    let facts = Facts {
        version,
        alias: ledger.alias_of(&version.id),
        run,
        dataset: dataset.and_then(|it| serde_json::from_value(it.summary).ok()),
        curve: Curve::read(&versions.folder(&version.id)),
    };
    let mut text = metadata(version);
    let written = write_body(&mut text, &facts);
    written.expect("a String takes all that is written");
    Ok(text)
}

/// Writes the card of a version beside its files, where it has some.
///
/// # Errors
///
/// When the database cannot be read, or the file cannot be written.
pub(crate) fn write(versions: &Versions, ledger: &Ledger, version: &Version) -> Result<()> {
    let folder = versions.folder(&version.id);
    if version.artifact.is_none() || !folder.is_dir() {
        return Ok(());
    }
    place(&folder, &card(versions, ledger, version)?)?;
    Ok(())
}

/// Puts a card in its place at once: who reads it reads the one before or the new one.
fn place(folder: &Path, text: &str) -> io::Result<()> {
    let part = folder.join(format!("{FILE}.part"));
    fs::write(&part, text)?;
    fs::rename(part, folder.join(FILE))
}

fn metadata(version: &Version) -> String {
    let base = serde_json::Value::from(name_of(&version.lineage.base));
    let dataset = short(&version.lineage.dataset);
    format!(
        "---\nbase_model: {base}\nlibrary_name: peft\npipeline_tag: text-generation\n\
         license: other\ndatasets:\n- lodestar-{dataset}\ntags:\n- lora\n- lodestar\n---\n\n"
    )
}

fn write_body(text: &mut String, facts: &Facts<'_>) -> fmt::Result {
    let version = facts.version;
    writeln!(text, "# {}\n", version.id)?;
    let alias = facts.alias.map(|alias| format!(", {alias}")).unwrap_or_default();
    let state = format!("{}{alias}", version.state);
    writeln!(text, "State: **{state}** since {}.", day(version.updated_at))?;
    if version.tainted {
        writeln!(
            text,
            "\n**Tainted: some of what it was learnt from was forgotten, or its consent was taken \
             back. It must not be used.**"
        )?;
    }
    writeln!(
        text,
        "\nAn adapter (LoRA) of {}, trained by Lodestar on answers that people of the project \
         agreed to.\n",
        markdown(&name_of(&version.lineage.base))
    )?;
    write_origin(text, facts)?;
    write_training(text, facts)?;
    write_gates(text, &version.gates)?;
    write_approvals(text, version)?;
    write_terms(text, facts)?;
    write_limits(text, facts)
}

fn write_origin(text: &mut String, facts: &Facts<'_>) -> fmt::Result {
    let (version, lineage) = (facts.version, &facts.version.lineage);
    writeln!(text, "## Origin\n\n| what | value |\n|---|---|")?;
    writeln!(text, "| base | SHA-256 `{}` |", lineage.base_digest)?;
    writeln!(text, "| dataset | `{}` |", lineage.dataset_digest)?;
    writeln!(text, "| examples | {} |", lineage.examples)?;
    let consents: Vec<String> = lineage.consents.iter().map(|it| markdown(it)).collect();
    writeln!(text, "| consents | {} |", consents.join(", "))?;
    writeln!(text, "| run | {} |", markdown(&lineage.run))?;
    if let Some(artifact) = &version.artifact {
        writeln!(text, "| adapter.gguf | SHA-256 `{artifact}` |")?;
    }
    writeln!(text)
}

fn write_training(text: &mut String, facts: &Facts<'_>) -> fmt::Result {
    writeln!(text, "## Training\n")?;
    let Some(run) = &facts.run else {
        return writeln!(text, "Nothing is known of the run any more.\n");
    };
    let (job, told) = (&run.job, &run.told);
    writeln!(text, "| parameter | value |\n|---|---|")?;
    writeln!(text, "| trainer | {} |", markdown(&run.trainer))?;
    let method = serde_json::to_value(job.method).unwrap_or_default();
    writeln!(text, "| method | {} |", method.as_str().unwrap_or_default())?;
    writeln!(text, "| rank, alpha | {}, {} |", job.lora.r, job.lora.alpha)?;
    writeln!(text, "| learning rate | {} |", job.train.lr)?;
    writeln!(text, "| steps | {} |", told.step)?;
    let (batch, accumulated) = (job.train.batch_size, job.train.grad_accum);
    writeln!(text, "| examples a step | {batch} times {accumulated} |")?;
    writeln!(text, "| longest example | {} tokens |", job.train.max_length)?;
    writeln!(text, "| seed | {} |", job.train.seed)?;
    if let Some(smaller) = &run.smaller {
        writeln!(text, "| made smaller to fit the memory | {} |", markdown(smaller))?;
    }
    for (title, points) in [
        ("Loss on the examples", &facts.curve.train),
        ("Loss on the held-out examples", &facts.curve.held_out),
    ] {
        if !points.is_empty() {
            writeln!(text, "\n{title}:\n\n| step | loss |\n|---|---|")?;
            for (step, loss) in points {
                writeln!(text, "| {step} | {loss:.4} |")?;
            }
        }
    }
    writeln!(text)
}

fn write_gates(text: &mut String, gates: &[Gate]) -> fmt::Result {
    writeln!(text, "## Gates\n")?;
    if gates.is_empty() {
        return writeln!(text, "They were not measured yet.\n");
    }
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| format!("{it:.3}"));
    writeln!(text, "| gate | passed | value | limit | overridden |\n|---|---|---|---|---|")?;
    for gate in gates {
        let passed = if gate.passed { "yes" } else { "no" };
        let by = gate.overridden.as_ref();
        let by = by.map(|it| format!("{}: {}", markdown(&it.by), markdown(&it.reason)));
        writeln!(
            text,
            "| {} | {passed} | {} | {} | {} |",
            markdown(&gate.name),
            number(gate.value),
            number(gate.limit),
            by.unwrap_or_default()
        )?;
    }
    for (gate, words, reason) in gates.iter().filter_map(without_value) {
        writeln!(text, "\n{} {words}: {}", markdown(&gate.name), markdown(reason))?;
    }
    writeln!(text)
}

/// Returns a gate that has no value with the words for that and the reason.
fn without_value(gate: &Gate) -> Option<(&Gate, &'static str, &str)> {
    let reasons = [("was not measured", "not_measured"), ("does not apply", "not_applicable")];
    let of = |(words, key): (&'static str, &str)| Some((gate, words, gate.evidence[key].as_str()?));
    reasons.into_iter().find_map(of)
}

fn write_approvals(text: &mut String, version: &Version) -> fmt::Result {
    writeln!(text, "## Approval\n")?;
    for approval in &version.approvals {
        let is_valid = version.expected().is_some_and(|it| it == approval.observed)
            && approval.evaluation == version.evaluation;
        let word = if is_valid { "approved it" } else { "approved it as it was before" };
        let (by, reason) = (markdown(&approval.by), markdown(&approval.reason));
        writeln!(text, "- {by} {word} on {}: {reason}", day(approval.at))?;
    }
    if version.approvals.is_empty() {
        writeln!(text, "Nobody approved it.")?;
    }
    writeln!(text)
}

fn write_terms(text: &mut String, facts: &Facts<'_>) -> fmt::Result {
    writeln!(text, "## Terms\n")?;
    let Some(dataset) = &facts.dataset else {
        return writeln!(text, "Nothing is known of the dataset any more.\n");
    };
    writeln!(text, "| terms of the model that answered | examples | share |\n|---|---|---|")?;
    for (class, number) in &dataset.licences {
        let share = number * 100 / dataset.examples.max(1);
        writeln!(text, "| {} | {number} | {share} % |", class_name(*class))?;
    }
    for one in &dataset.attestations {
        let (by, model) = (markdown(&one.by), one.subject(markdown));
        let statement = markdown(&one.statement);
        writeln!(text, "\n{by} answers for {model} since {}: {statement}", day(one.at))?;
    }
    writeln!(text)
}

fn write_limits(text: &mut String, facts: &Facts<'_>) -> fmt::Result {
    writeln!(text, "## Limits\n")?;
    if let Some(dataset) = &facts.dataset {
        let projects: Vec<String> = dataset.projects.iter().map(|it| markdown(it)).collect();
        writeln!(text, "- It was made for the questions of {}.", projects.join(", "))?;
        for gap in &dataset.gaps {
            writeln!(text, "- Of its dataset: {gap}.")?;
        }
    }
    for gate in facts.version.gates.iter().filter(|gate| !gate.passed) {
        writeln!(text, "- The gate {} did not pass.", markdown(&gate.name))?;
    }
    writeln!(
        text,
        "- Its answers are compared by the words that they share with those that were kept, which \
         says nothing of another good answer.\n- What it was trained on may be found again in \
         what it says: keep it where those texts may be read."
    )
}

/// Returns the name of a base: the last part of its path, which tells nothing of folders.
fn name_of(base: &str) -> String {
    let name = Path::new(base).file_name().map(|name| name.to_string_lossy().into_owned());
    crate::commands::plain(&name.unwrap_or_else(|| "base".to_owned()), SHORT * 10)
}

fn short(digest: &str) -> &str {
    digest.get(..SHORT).unwrap_or(digest)
}

#[cfg(test)]
mod tests;
