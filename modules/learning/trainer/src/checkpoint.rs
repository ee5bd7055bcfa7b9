//! Checkpoints: all that a run needs to go on as if it had not been ended.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};

use crate::{
    failure::{Failure, Result},
    files,
    optimiser::{Optimiser, Parameter},
};

/// Number of checkpoints that are kept.
const KEPT: usize = 2;

/// Key of the description within the file.
const KEY: &str = "run";

/// Description of the moment of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Number of steps that were made.
    pub step: usize,
    /// Number of tokens that were learnt.
    pub tokens: u64,
    /// Digest of the job's identity.
    pub identity: String,
}

/// Returns the folder of the checkpoints of a run.
#[must_use]
pub fn folder(output: &Path) -> PathBuf {
    output.join("checkpoints")
}

/// Writes a checkpoint, removes all but the newest, and returns its path.
///
/// # Errors
///
/// When it cannot be written; those before it stay as they are.
pub fn save(output: &Path, optimiser: &Optimiser, moment: &Moment) -> Result<PathBuf> {
    let mut parts = BTreeMap::new();
    for (name, it) in &optimiser.parameters {
        let parts_of = [("value", &it.values), ("mean", &it.mean), ("square", &it.square)];
        for (part, values) in parts_of {
            parts.insert(format!("{name}/{part}"), (it.sizes.clone(), files::bytes_of(values)));
        }
    }
    let mut views = Vec::with_capacity(parts.len());
    for (name, (sizes, bytes)) in &parts {
        let view = TensorView::new(Dtype::F32, sizes.clone(), bytes).map_err(broken)?;
        views.push((name, view));
    }
    let moment_text = serde_json::to_string(moment)
        .map_err(|error| Failure::other(format!("a checkpoint: {error}")))?;
    let bytes = serialize(views, Some(HashMap::from([(KEY.to_owned(), moment_text)])));
    let path = folder(output).join(format!("step-{:08}.safetensors", moment.step));
    files::write(&path, &bytes.map_err(broken)?)?;
    for old in list(&folder(output)).into_iter().rev().skip(KEPT) {
        fs::remove_file(&old).map_err(|error| Failure::file("remove", &old, &error))?;
    }
    Ok(path)
}

/// Reads a checkpoint, or the newest of a folder that can be read; none when a folder has none.
///
/// # Errors
///
/// When a file that was named is missing or broken, or belongs to another job.
pub fn load(path: &Path, identity: &str) -> Result<Option<(Optimiser, Moment)>> {
    if !path.is_dir() {
        return read(path, identity).map(Some);
    }
    let found = list(path).into_iter().chain(list(&folder(path))).collect::<Vec<_>>();
    let mut failure = None;
    for path in found.into_iter().rev() {
        match read(&path, identity) {
            Ok(read) => return Ok(Some(read)),
            Err(why) => failure = failure.or(Some(why)),
        }
    }
    failure.map_or(Ok(None), Err)
}

/// Returns the checkpoints of a folder, the newest last.
fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|it| it.path());
    let is_checkpoint = |path: &PathBuf| {
        let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
        name.starts_with("step-") && name.ends_with(".safetensors")
    };
    let mut found: Vec<PathBuf> = entries.filter(is_checkpoint).collect();
    found.sort();
    found
}

fn read(path: &Path, identity: &str) -> Result<(Optimiser, Moment)> {
    let wrong = |why: &str| Failure::job(format!("the checkpoint {} {why}", path.display()));
    let bytes = fs::read(path).map_err(|error| Failure::file("read", path, &error))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|_| wrong("is broken"))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|_| wrong("is broken"))?;
    let moment = header.metadata().as_ref().and_then(|it| it.get(KEY));
    let moment: Moment = moment
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or_else(|| wrong("is none of this trainer's"))?;
    if moment.identity != identity {
        return Err(wrong(
            "belongs to another job: its base, data, adapter or course differ; begin anew",
        ));
    }
    let mut optimiser = Optimiser { parameters: BTreeMap::new(), step: moment.step };
    for name in tensors.names() {
        let Some(name) = name.strip_suffix("/value") else { continue };
        let part = |part: &str| {
            let view = tensors.tensor(&format!("{name}/{part}"));
            view.map_err(|_| wrong("is not whole")).map(|it| files::numbers_of(it.data()))
        };
        let view = tensors.tensor(&format!("{name}/value")).map_err(|_| wrong("is not whole"))?;
        let parameter = Parameter {
            sizes: view.shape().to_vec(),
            values: files::numbers_of(view.data()),
            mean: part("mean")?,
            square: part("square")?,
        };
        if [&parameter.mean, &parameter.square].iter().any(|it| it.len() != parameter.values.len())
        {
            return Err(wrong("is not whole"));
        }
        optimiser.parameters.insert(name.to_owned(), parameter);
    }
    Ok((optimiser, moment))
}

fn broken(error: safetensors::SafeTensorError) -> Failure {
    Failure::other(format!("a checkpoint cannot be made: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Class;

    fn optimiser(step: usize) -> Optimiser {
        let values = vec![1.5, -2.0, step as f32, 0.25];
        let parameter = Parameter {
            sizes: vec![2, 2],
            mean: values.iter().map(|it| it / 3.0).collect(),
            square: values.iter().map(|it| it * it).collect(),
            values,
        };
        Optimiser { parameters: BTreeMap::from([("a.lora_A".into(), parameter)]), step }
    }

    #[test]
    fn the_newest_whole_checkpoint_is_read_back() {
        let output = tempfile::tempdir().expect("a folder");
        assert!(load(output.path(), "x").expect("it is empty").is_none());
        for step in [5, 10, 15] {
            let moment = Moment { step, tokens: 9, identity: "x".into() };
            save(output.path(), &optimiser(step), &moment).expect("it is writable");
        }
        let left = list(&folder(output.path()));
        assert_eq!(left.len(), KEPT);
        let (read, moment) = load(output.path(), "x").expect("it is whole").expect("it is there");
        assert_eq!((read, moment.step), (optimiser(15), 15));
        let bytes = fs::read(&left[1]).expect("it is there");
        fs::write(&left[1], &bytes[..bytes.len() - 3]).expect("it is writable");
        let (read, _) = load(output.path(), "x").expect("one is whole").expect("it is there");
        assert_eq!(read, optimiser(10));
        assert_eq!(load(&left[1], "x").expect_err("it is cut").class, Class::Job);
        assert_eq!(load(output.path(), "y").expect_err("another job").class, Class::Job);
    }
}
