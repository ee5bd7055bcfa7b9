use std::{fs, path::Path, sync::atomic::Ordering, time::Duration};

use rusqlite::Connection;
use tempfile::TempDir;

use super::{job::tests::job, *};

/// Lines of a training of two steps, as functions of a shell.
const FUNCTIONS: &str = r#"
n=0
say() { n=$((n+1)); printf '{"v":1,"seq":%d,"ts":0,"event":%s}\n' "$n" "$1"; }
step() { say "\"progress\",\"step\":$1,\"max_steps\":10,\"loss\":1.5"; }
keep() { mkdir -p "output/c$1"; say "\"checkpoint\",\"step\":$1,\"path\":\"output/c$1\""; }
finish() { echo '{}' > output/adapter_config.json; echo x > output/adapter_model.safetensors
           say '"done"'; }
say '"start"'; say '"ready","trainable":8,"total":9'
"#;

/// Returns a trainer that is a script of the shell, which gets the job as `$1`.
fn scripted(script: &str) -> Custom {
    let args = vec!["-c".to_owned(), format!("{FUNCTIONS}\n{script}"), "trainer".to_owned()];
    Custom { program: "/bin/sh".into(), args }
}

/// Bounds that a test never reaches.
fn wide() -> Bounds {
    Bounds {
        heartbeat: Duration::from_secs(120),
        wall: Duration::from_secs(300),
        grace: Duration::from_secs(60),
        ..Bounds::default()
    }
}

/// A run in a folder of its own, whose id is its own too: processes are found by it.
struct Stage {
    folder: TempDir,
    job: Job,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let job_id = format!("run-{}", uuid::Uuid::now_v7());
        Self { folder, job: Job { job_id, ..job() } }
    }

    fn report(&self, script: &str, bounds: Bounds) -> Report {
        let control = Control::default();
        let trainer = scripted(script);
        let report = run(&trainer, &self.job, self.path(), bounds, &control, &mut |_| {});
        let report = report.expect("it is watched").expect("it ends");
        assert_eq!(sweep(&self.job.job_id), 0, "nothing is left of it");
        report
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join("attempt-1").join(name)).expect("it was written")
    }
}

#[test]
fn a_training_is_done_politely_and_without_keys() {
    let stage = Stage::new();
    let script = "env > env; sleep 0.3; nice > nice; cat /proc/self/oom_score_adj > oom
                  step 1; keep 1; step 2; finish";
    let report = stage.report(script, wide());
    let ending = &report.ending;
    assert_eq!((ending.outcome, ending.message.as_str()), (Outcome::Done, "2 steps are done"));
    assert_eq!((ending.told.step, ending.told.trainable), (2, Some(8)));
    assert_eq!((report.attempt, report.smaller, ending.left_behind), (1, None, 0));
    assert_eq!(stage.read("nice").trim(), "10");
    assert_eq!(stage.read("oom").trim(), "500");
    let known = "PATH LANG LC_ALL TZ LD_LIBRARY_PATH CUDA_VISIBLE_DEVICES HOME TMPDIR LODESTAR_RUN \
                 OMP_NUM_THREADS RAYON_NUM_THREADS TOKENIZERS_PARALLELISM PYTHONUNBUFFERED \
                 HF_HUB_OFFLINE HF_DATASETS_OFFLINE TRANSFORMERS_OFFLINE \
                 HF_HUB_DISABLE_TELEMETRY DO_NOT_TRACK WANDB_MODE PWD OLDPWD SHLVL _";
    for line in stage.read("env").lines() {
        let name = line.split('=').next().unwrap_or_default();
        assert!(known.split_whitespace().any(|one| one == name), "{name} goes along");
    }
    assert!(stage.read("env").contains("OMP_NUM_THREADS=1\n"));
    let job: Job = serde_json::from_str(&stage.read("job.json")).expect("it is a job");
    assert!(job.output_dir.ends_with("attempt-1/output") && job.output_dir.is_absolute());
    assert_eq!(job.limits.wall_s, Some(300));
}

#[test]
fn exit_codes_become_outcomes_and_messages_show_no_text() {
    for (script, outcome) in [
        ("exit 1", Outcome::Failed),
        ("exit 2", Outcome::BadJob),
        ("exit 3", Outcome::Data),
        ("exit 5", Outcome::Stopped),
        ("exit 6", Outcome::Missing),
        ("exit 7", Outcome::Limit),
        ("exit 77", Outcome::Failed),
        ("exit 0", Outcome::Contract),
        // Done in words only.
        ("say '\"done\"'", Outcome::Contract),
        ("finish; exit 1", Outcome::Failed),
        ("kill -9 $$", Outcome::Killed),
        ("kill -25 $$", Outcome::Limit),
        ("exec /nowhere/program", Outcome::Failed),
    ] {
        let report = Stage::new().report(script, wide());
        assert_eq!(report.ending.outcome, outcome, "{script}");
        assert_eq!(report.ending.resumable(), None, "{script}");
    }
    let script = r#"say '"error","code":3,"cls":"data","message":"canary text"'; exit 3"#;
    let stage = Stage::new();
    let report = stage.report(script, wide());
    let message = &report.ending.message;
    assert!(message.starts_with("the trainer refused the examples; see /"), "{message}");
    assert!(!format!("{report:?}").contains("canary"));
    // One that is known to be careful is quoted.
    let trainer = scripted(script);
    let attempt = attempt(&trainer, &stage.job, stage.path(), wide(), 1);
    let attempt = Attempt { has_plain_messages: true, ..attempt };
    let ending = attempt.ending_of_lost();
    assert_eq!(ending.outcome, Outcome::Data);
    assert_eq!(ending.message, "the trainer refused the examples: canary text");
}

#[test]
fn one_that_hangs_is_ended() {
    let quick = Bounds { heartbeat: Duration::from_millis(300), ..wide() };
    let report = Stage::new().report("keep 0; step 1; keep 1; sleep 1000", quick);
    assert_eq!(report.ending.outcome, Outcome::Hung);
    let checkpoint = report.ending.told.checkpoint.clone().expect("it was told");
    assert_eq!(checkpoint.step, 1);
    // One that takes no notice, and repeats itself to seem alive.
    let quick = Bounds { grace: Duration::from_millis(200), ..quick };
    let script = "trap '' TERM; while :; do say '\"ready\"'; sleep 0.05; done";
    assert_eq!(Stage::new().report(script, quick).ending.outcome, Outcome::Hung);
    let short = Bounds { wall: Duration::from_millis(400), ..quick };
    let short = Bounds { heartbeat: Duration::from_secs(60), ..short };
    assert_eq!(Stage::new().report("sleep 1000", short).ending.outcome, Outcome::Limit);
}

#[test]
fn one_that_floods_or_lies_is_ended() {
    let bounds = Bounds { events: 1 << 20, ..wide() };
    for script in [
        "exec yes garbage",
        "yes | tr -d '\\n'",
        "while :; do step 11; done",
        "while :; do step 1; done",
        "exec cat /dev/zero",
    ] {
        let stage = Stage::new();
        let report = stage.report(script, bounds);
        assert_eq!(report.ending.outcome, Outcome::Contract, "{script}");
        let length = stage.read("events.jsonl").len();
        assert!(length <= 1 << 20, "{script} left {length} bytes");
    }
    let bounds = Bounds { disk: 1 << 20, ..wide() };
    let report = Stage::new().report("sleep 0.3; exec head -c 9000000 /dev/zero > big", bounds);
    assert_eq!(report.ending.outcome, Outcome::Limit);
}

#[test]
fn memory_that_is_not_enough_is_tried_once_more_with_less() {
    let script = "grep -q '\"batch_size\": 4' \"$1\" && exit 4; step 1; finish";
    let stage = Stage::new();
    let report = stage.report(script, wide());
    assert_eq!((report.ending.outcome, report.attempt), (Outcome::Done, 2));
    assert_eq!(report.smaller.as_deref(), Some("batch_size 2, grad_accum 2"));
    let report = Stage::new().report("exit 4", wide());
    assert_eq!((report.ending.outcome, report.attempt), (Outcome::OutOfMemory, 2));
    assert_eq!(report.smaller.as_deref(), Some("batch_size 2, grad_accum 2"));
}

#[test]
fn children_are_ended_wherever_they_went() {
    let script = "sleep 1000 & setsid sleep 1001 & (setsid sh -c 'sleep 1002 & sleep 1003' &)
                  sleep 0.3; step 1; finish";
    let report = Stage::new().report(script, wide());
    assert_eq!(report.ending.outcome, Outcome::Done);
    assert!(report.ending.left_behind >= 3, "{}", report.ending.left_behind);
}

#[test]
fn a_request_to_stop_leads_to_a_checkpoint() {
    let stage = Stage::new();
    let script = "trap 'keep 1; say \"\\\"stopped\\\"\"; exit 5' TERM; step 1
                  while :; do sleep 0.05; done";
    let control = Control::default();
    let mut started = 0;
    let report =
        run(
            &scripted(script),
            &stage.job,
            stage.path(),
            wide(),
            &control,
            &mut |news| match news {
                News::Started { attempt, identity } => {
                    started += 1;
                    assert_eq!(attempt, 1);
                    assert!(Process::adopt(identity).is_some());
                }
                News::Told(told) if told.step == 1 => control.stop.store(true, Ordering::Release),
                News::Told(_) => {}
            },
        );
    let ending = report.expect("it is watched").expect("it ends").ending;
    assert_eq!((ending.outcome, started), (Outcome::Stopped, 1));
    assert_eq!(ending.message, "it was stopped after step 1");
    let checkpoint = ending.resumable().expect("it can be resumed");
    assert_eq!(checkpoint.step, 1);
    // Resumed and killed before it wrote another one, it still has the one before.
    let resumed = Job { resume_from: Some(checkpoint.path.clone()), ..stage.job.clone() };
    let control = Control::default();
    let again = scripted("step 1; kill -9 $$");
    let report = run(&again, &resumed, stage.path(), wide(), &control, &mut |_| {});
    let ending = report.expect("it is watched").expect("it ends").ending;
    assert_eq!(ending.outcome, Outcome::Killed);
    assert_eq!(ending.resumable().map(|it| &it.path), Some(&checkpoint.path));
}

#[test]
fn a_training_outlives_its_watcher_and_is_taken_up() {
    let connection = Connection::open_in_memory().expect("a database");
    connection.execute_batch(MIGRATION).expect("the schema is valid");
    let stage = Stage::new();
    let trainer = scripted("step 1; until [ -e go ]; do sleep 0.05; done; step 2; finish");
    create(&connection, &stage.job, "command", 1).expect("it is written");
    assert!(begin(&connection, &stage.job, 2).expect("it is written"));
    for is_noted in [true, false] {
        if !is_noted {
            // The daemon was killed before it kept the number.
            let sql = "UPDATE run SET pid = NULL, started = NULL, boot = NULL";
            connection.execute_batch(sql).expect("it is written");
            let run =
                load(&connection, &stage.job.job_id).expect("it is read").expect("it is there");
            assert_eq!(run.identity, None);
            let process = find(&run).expect("it is found by its mark");
            assert!(process.age() < Duration::from_secs(600));
            continue;
        }
        let control = Control::default();
        let left = run(&trainer, &stage.job, stage.path(), wide(), &control, &mut |news| {
            if let News::Started { attempt, identity } = news {
                spawned(&connection, &stage.job.job_id, attempt, identity).expect("it is written");
                control.leave.store(true, Ordering::Release);
            }
        });
        assert!(left.expect("it is watched").is_none(), "it goes on");
    }
    let run = unfinished(&connection).expect("it is read").expect("it goes on");
    let process = find(&run).expect("it is found");
    fs::write(stage.path().join("attempt-1/go"), "").expect("it is written");
    let (control, attempt) = (Control::default(), (run.attempt.max(1), &process));
    let report = go_on(&trainer, &run.job, stage.path(), wide(), attempt, &control, &mut |_| {});
    let report = report.expect("it is watched").expect("it ends");
    assert_eq!((report.ending.outcome, report.ending.told.step), (Outcome::Done, 2));
    assert_eq!(ended(&connection, &run.id, &report, 3).expect("it is written"), RunState::Done);
    assert_eq!(unfinished(&connection).expect("it is read"), None);
}

#[test]
fn what_became_of_a_training_in_the_meantime_is_found_out() {
    for (script, outcome, is_resumable) in [
        ("step 1; finish", Outcome::Done, false),
        ("step 1; keep 1; say '\"stopped\"'; exit 5", Outcome::Stopped, true),
        ("step 1; keep 1; kill -9 $$", Outcome::Killed, true),
        ("step 1", Outcome::Killed, false),
    ] {
        let stage = Stage::new();
        stage.report(script, wide());
        let attempt = attempt(&scripted(script), &stage.job, stage.path(), wide(), 1);
        let ending = attempt.ending_of_lost();
        assert_eq!(ending.outcome, outcome, "{script}");
        assert_eq!(ending.resumable().is_some(), is_resumable, "{script}");
        assert_eq!(ending.told.step, 1);
    }
}

#[test]
fn one_training_goes_on_at_a_time() {
    let connection = Connection::open_in_memory().expect("a database");
    connection.execute_batch(MIGRATION).expect("the schema is valid");
    let stage = Stage::new();
    let [one, two] = ["one", "two"].map(|id| Job { job_id: id.to_owned(), ..stage.job.clone() });
    create(&connection, &one, "embedded", 1).expect("it is written");
    create(&connection, &two, "embedded", 2).expect("it is written");
    create(&connection, &two, "embedded", 2).expect_err("there is one of this id");
    assert!(begin(&connection, &one, 3).expect("it is written"));
    assert!(!begin(&connection, &two, 3).expect("it is looked at"), "the other one has its turn");
    let report = stage.report("step 1; keep 1; exit 5", wide());
    let ended_as = ended(&connection, "one", &report, 4).expect("it is written");
    assert_eq!(ended_as, RunState::Stopped);
    let run = load(&connection, "one").expect("it is read").expect("it is there");
    assert_eq!((run.outcome, run.updated_at), (Some(Outcome::Stopped), 4));
    let resumed = run.resumed().expect("it has a checkpoint");
    assert!(resumed.resume_from.is_some_and(|path| path.ends_with("attempt-1/output/c1")));
    assert!(begin(&connection, &two, 5).expect("it is written"));
    let report = Stage::new().report("exit 3", wide());
    let ended_as = ended(&connection, "two", &report, 6).expect("it is written");
    assert_eq!(ended_as, RunState::Failed);
    assert!(!begin(&connection, &two, 7).expect("it is looked at"), "it failed");
    let ids: Vec<String> =
        runs(&connection, 10).expect("they are read").into_iter().map(|run| run.id).collect();
    assert_eq!(ids, ["two", "one"]);
}

#[test]
fn a_trainer_that_is_not_there_is_named() {
    let stage = Stage::new();
    let trainer = Custom { program: "/nowhere/trainer".into(), args: Vec::new() };
    let control = Control::default();
    let error = run(&trainer, &stage.job, stage.path(), wide(), &control, &mut |_| {});
    let error = error.expect_err("it is not there").to_string();
    assert!(error.starts_with("there is no trainer at /nowhere/trainer; install it"), "{error}");
    // A file that is no program.
    let path = stage.path().join("text");
    fs::write(&path, "no program").expect("it is written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, mode).expect("it is set");
    let trainer = Custom { program: path, args: Vec::new() };
    let error = run(&trainer, &stage.job, stage.path(), wide(), &control, &mut |_| {});
    assert!(matches!(error, Err(RunError::Spawn { .. })), "{error:?}");
    let folder = stage.path().join("text");
    let error = run(&scripted("exit 0"), &stage.job, &folder, wide(), &control, &mut |_| {});
    assert!(matches!(error, Err(RunError::Folder { .. })), "{error:?}");
}
