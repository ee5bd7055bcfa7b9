//! Benchmark of the filters: documents with planted near-duplicates are de-duplicated and filtered.
//!
//! `cargo xtask bench quality [--python PROGRAM]`: 20,000 documents of some 1.3 kB, a fifth of them
//! copies with one to four words replaced. Times are of the processor, on one core. With a Python
//! that has `datasketch`, its bulk MinHash of as many permutations does the same beside.

use std::{
    collections::HashSet,
    error::Error,
    fs,
    hint::black_box,
    io::Write as _,
    process::{Command, Stdio},
    sync::atomic::AtomicBool,
};

use learning::{
    example::{Example, LicenceClass, Message},
    quality::{Config, Decontamination, Funnel, near_duplicates},
};
use module_sdk::events::ContentRole;
use serde_json::{Value, json};

const ORIGINALS: usize = 15_920;
const COPIES: usize = 4_080;
/// Words of a document: with its space a word has some six bytes.
const WORDS: usize = 210;
const VOCABULARY: usize = 8_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let python = match (args.next().as_deref(), args.next()) {
        (None, _) => None,
        (Some("--python"), Some(program)) => Some(program),
        _ => return Err("usage: quality [--python PROGRAM]".into()),
    };
    let (texts, of) = documents();
    let bytes = texts.iter().map(String::len).sum::<usize>() / texts.len();
    let begun = cpu_seconds()?;
    let sets = near_duplicates(&texts, Config::default().similarity);
    let rate = texts.len() as f64 / (cpu_seconds()? - begun);
    let is_found = |copy: &usize| sets[ORIGINALS + copy] == sets[of[*copy]];
    let found = (0..COPIES).filter(is_found).count();
    let distinct = sets[..ORIGINALS].iter().collect::<HashSet<_>>().len();
    let mut figures = vec![
        json!({
            "name": format!("learning: documents of {bytes} bytes de-duplicated"),
            "unit": "docs/CPU-s", "value": rate.round(),
            "goal": {"at_least": 15_000, "of": "value"},
        }),
        json!({
            "name": "learning: planted near-duplicates found", "unit": "share",
            "value": found as f64 / COPIES as f64,
            "goal": {"at_least": 0.99, "of": "value"},
        }),
        json!({
            "name": "learning: different documents taken for one", "unit": "docs",
            "value": ORIGINALS - distinct,
            "goal": {"at_most": 0, "of": "value"},
        }),
    ];
    if let Some(python) = python {
        let (seconds, found) = datasketch(&python, &texts, &of)?;
        let other = texts.len() as f64 / seconds;
        figures[0]["baseline"] = json!({"name": "datasketch", "value": other.round()});
        figures[0]["goal"] = json!({"at_least": 8, "of": "ratio"});
        figures[1]["baseline"] = json!({"name": "datasketch", "value": found / COPIES as f64});
    }
    figures.push(funnel(&texts)?);
    for figure in figures {
        println!("{figure}");
    }
    Ok(())
}

/// Returns the documents, the copies last, and of which one each copy is.
fn documents() -> (Vec<String>, Vec<usize>) {
    let mut random = Random(1);
    let word = |random: &mut Random| {
        let letters = 2 + random.below(7);
        (0..letters).map(|_| char::from(b'a' + random.below(26) as u8)).collect::<String>()
    };
    let vocabulary: Vec<String> = (0..VOCABULARY).map(|_| word(&mut random)).collect();
    // As in a language some words are common: the rank is that of a random share squared.
    let pick = |random: &mut Random| {
        let share = random.below(VOCABULARY) as f64 / VOCABULARY as f64;
        vocabulary[(share * share * VOCABULARY as f64) as usize].as_str()
    };
    let mut words: Vec<Vec<&str>> =
        (0..ORIGINALS).map(|_| (0..WORDS).map(|_| pick(&mut random)).collect()).collect();
    let of: Vec<usize> = (0..COPIES).map(|_| random.below(ORIGINALS)).collect();
    for original in &of {
        let mut copy = words[*original].clone();
        for _ in 0..1 + random.below(4) {
            copy[random.below(WORDS)] = pick(&mut random);
        }
        words.push(copy);
    }
    (words.iter().map(|words| words.join(" ")).collect(), of)
}

/// Returns how many examples pass through all filters in a second.
fn funnel(texts: &[String]) -> Result<Value, Box<dyn Error>> {
    let examples: Vec<Example> = texts.iter().enumerate().map(example).collect();
    let count = examples.len();
    let funnel = Funnel::new(&Config::default())?;
    let benchmarks = Decontamination::new(["one two three four five six seven eight nine ten a b"]);
    let begun = cpu_seconds()?;
    let outcome = funnel.run(examples, &benchmarks, &mut |_, _| (), &AtomicBool::new(false));
    let rate = count as f64 / (cpu_seconds()? - begun);
    let kept = black_box(outcome).kept.len();
    let name = format!("learning: examples through all filters, {kept} of {count} kept");
    Ok(json!({"name": name, "unit": "examples/CPU-s", "value": rate.round()}))
}

fn example((index, text): (usize, &String)) -> Example {
    let (question, answer) = text.split_at(text.len() / 4);
    let message =
        |role, content: &str| Message { role, content: content.to_owned(), tool_calls: None };
    Example {
        id: index.to_string(),
        project: "bench".to_owned(),
        conversation: index.to_string(),
        at: 0,
        model: None,
        licence: LicenceClass::Own,
        attested: false,
        consent: Some("bench".to_owned()),
        outcome: learning::example::Outcome::default(),
        messages: vec![
            message(ContentRole::User, question),
            message(ContentRole::Assistant, answer),
        ],
        tools: None,
    }
}

/// Returns the seconds of the processor that `datasketch` takes, and how many copies it finds.
fn datasketch(python: &str, texts: &[String], of: &[usize]) -> Result<(f64, f64), Box<dyn Error>> {
    let mut child = Command::new(python)
        .args(["-c", include_str!("quality/datasketch.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let input = json!({"texts": texts, "of": of}).to_string();
    child.stdin.take().ok_or("it has an input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let number = |name: &str| said[name].as_f64().ok_or("datasketch said no number");
    Ok((number("seconds")?, number("found")?))
}

/// Returns the time that this thread has had on a processor.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let spent = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: u64 = spent.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanoseconds as f64 / 1e9)
}

/// SplitMix64, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((number ^ (number >> 31)) % count as u64) as usize
    }
}
