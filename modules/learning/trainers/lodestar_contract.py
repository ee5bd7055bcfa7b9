"""The contract of trainers: a job in, lines of JSON out, exit codes, and a checkpoint on SIGTERM.

Only the standard library is needed here. Whatever else prints goes to the standard error: the
standard output is kept for events. No event holds text of an example, and no trace does.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback

VERSION = 1
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CLASSES = {
    1: "other", 2: "bad_job", 3: "bad_data", 4: "out_of_memory", 5: "stopped", 6: "missing",
    7: "limit",
}


class Failure(Exception):
    """An end with an exit code of the contract, and a sentence without text of examples."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
        self.message = message


class Run:
    """A job that is being done: its events, its limits and the request to stop."""

    def __init__(self, job, converter, events):
        self.job = job
        self.converter = converter
        self.output = job["output_dir"]
        self.began = time.monotonic()
        self.is_asked_to_stop = False
        # `True` once there are steps, after which a checkpoint can be written.
        self.is_learning = False
        self._events = events
        self._seq = 0

    def tell(self, event, **fields):
        """Writes an event."""
        now = int(time.time() * 1000)
        known = {key: value for key, value in fields.items() if value is not None}
        line = {"v": VERSION, "seq": self._seq, "ts": now, "event": event, **known}
        self._seq += 1
        self._events.write(json.dumps(line) + "\n")
        self._events.flush()

    def reason_to_stop(self):
        """Returns the exit code with which the run should end after this step, or none."""
        if self.is_asked_to_stop:
            return 5
        wall = self.job.get("limits", {}).get("wall_s")
        if wall is not None and time.monotonic() - self.began > wall:
            return 7
        return None

    def stop(self, code, step):
        """Ends the run after a checkpoint."""
        if code == 5:
            self.tell("stopped", step=step)
            raise SystemExit(5)
        raise Failure(7, f"the time was up after step {step}; it can be resumed")

    def environment(self, **fields):
        """Tells with what is computed."""
        self.tell("env", python=".".join(map(str, sys.version_info[:3])), **fields)

    def progress(self, step, max_steps, loss, **fields):
        """Tells of a step."""
        # JSON has no word for a loss that is not a number.
        loss = loss if loss is not None and loss == loss and abs(loss) < 1e30 else None
        self.tell("progress", step=step, max_steps=max_steps, loss=loss, **fields)

    def finish(self, step, **fields):
        """Makes the adapter for llama.cpp out of the one of PEFT, and tells that all is done."""
        gguf = os.path.join(self.output, "adapter.gguf")
        command = [self.converter, "convert", self.output, "--base", self.job["base"]["path"],
                   "--out", gguf]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        except OSError as error:
            raise Failure(6, f"{self.converter} cannot be started: {error.strerror}") from None
        if done.returncode != 0:
            raise Failure(done.returncode if done.returncode in CLASSES else 1,
                          "the adapter cannot be converted: " + message_of(done.stdout))
        self.tell("saved", path=self.output, gguf=gguf)
        self.tell("done", step=step, elapsed_s=round(time.monotonic() - self.began, 3), **fields)


def message_of(lines):
    """Returns the message of the last error among lines of events."""
    for line in reversed(lines.decode("utf-8", "replace").splitlines()):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") == "error":
            return str(event.get("message", ""))
    return "see the log"


def read_job(path):
    """Reads a job, and refuses what no trainer of these does."""
    try:
        with open(path, encoding="utf-8") as file:
            job = json.load(file)
        if job["v"] != VERSION:
            raise Failure(2, f"the job has version {job['v']!r}; this trainer knows {VERSION}")
        lora, train = job["lora"], job["train"]
        for value, name in [
            (job["base"]["path"], "base.path"), (job["dataset"]["train"], "dataset.train"),
            (job["output_dir"], "output_dir"), (lora["r"], "lora.r"),
            (lora["alpha"], "lora.alpha"), (train["lr"], "train.lr"),
            (train["batch_size"], "train.batch_size"), (train["grad_accum"], "train.grad_accum"),
            (train["max_length"], "train.max_length"), (train["seed"], "train.seed"),
            (train["save_every"], "train.save_every"),
        ]:
            if value is None or value == 0 and name != "train.seed":
                raise Failure(2, f"the job has no {name}")
        if job["method"] not in ("lora", "qlora"):
            raise Failure(2, f"the method {job['method']!r} is not known")
        if job["dataset"].get("format", "messages") != "messages":
            raise Failure(2, "the examples have an unknown form; it must be `messages`")
        if not job.get("offline", True):
            raise Failure(2, "`offline` must be true: nothing is fetched")
        if not train.get("max_steps") and not train.get("epochs"):
            raise Failure(2, "the job has neither train.max_steps nor train.epochs")
    except OSError as error:
        raise Failure(2, f"the job cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(2, f"the job has an unknown form: {type(error).__name__}") from None
    return job


def read_lines(path):
    """Reads examples: conversations that end with an answer."""
    examples = []
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    example = json.loads(line)
                    messages = example["messages"]
                    is_whole = messages[-1]["role"] == "assistant" and all(
                        isinstance(message["role"], str) for message in messages)
                except (ValueError, KeyError, TypeError, IndexError):
                    is_whole = False
                if not is_whole:
                    name = os.path.basename(path)
                    raise Failure(3, f"{name}:{number} is no conversation that ends with an answer")
                examples.append(example)
    except UnicodeDecodeError:
        raise Failure(3, f"{os.path.basename(path)} is no UTF-8") from None
    except OSError as error:
        name = os.path.basename(path)
        raise Failure(3, f"{name} cannot be read: {error.strerror}") from None
    if not examples:
        raise Failure(3, "there are no examples")
    return examples


def base_config(job):
    """Reads the configuration of the base, which is a folder."""
    path = job["base"]["path"]
    if not os.path.isdir(path):
        raise Failure(2, "the base must be a folder with config.json and model.safetensors; "
                         "GGUF files are for the trainer `embedded`")
    try:
        with open(os.path.join(path, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError):
        raise Failure(2, "the base has no config.json that can be read") from None
    kind = config.get("model_type")
    if kind not in ("llama", "qwen2", "qwen3"):
        raise Failure(2, f"the architecture {str(kind)[:40]!r} has no adapter for llama.cpp here; "
                         "use a Llama, Qwen2 or Qwen3 base")
    return config


def steps_of(job, examples):
    """Returns the number of steps of a job with so many examples."""
    train = job["train"]
    if train.get("max_steps"):
        return train["max_steps"]
    in_a_step = train["batch_size"] * train["grad_accum"]
    return max(1, -(-int(round(examples * train["epochs"] * 1000)) // (1000 * in_a_step)))


def checkpoint_to_resume(job):
    """Returns the checkpoint to go on from, or none."""
    path = job.get("resume_from")
    if path is not None and not os.path.isdir(path):
        raise Failure(2, "the checkpoint to go on from is not there")
    return path


def is_out_of_memory(error):
    """Returns whether an error says that the memory was not enough."""
    return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or (
        isinstance(error, RuntimeError) and "out of memory" in str(error).lower())


def failure_of(error):
    """Returns the failure of the contract that an error is."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, ImportError):
        name = (getattr(error, "name", None) or "a package").split(".")[0]
        return Failure(6, f"{name} cannot be imported; `lodestar learning setup` installs it")
    if is_out_of_memory(error):
        return Failure(4, "the memory was not enough")
    if isinstance(error, OSError) and error.errno in (27, 28, 122):
        return Failure(7, "nothing more can be written: the disk or a limit of size is full")
    # The words of another error may hold text of examples.
    return Failure(1, f"{type(error).__name__} was raised; the log says where")


def main(train):
    """Runs a trainer: `PROGRAM JOB --converter PROGRAM`."""
    # All that libraries print goes to the log.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    run = Run({"output_dir": "."}, None, events)
    try:
        if len(sys.argv) != 4 or sys.argv[2] != "--converter":
            raise Failure(2, "the arguments must be JOB --converter PROGRAM")
        job = read_job(sys.argv[1])
        run.job, run.output, run.converter = job, job["output_dir"], sys.argv[3]

        def ask(*_):
            run.is_asked_to_stop = True
            if not run.is_learning:
                # Libraries are imported for a minute, and nothing would be lost.
                os._exit(5)

        signal.signal(signal.SIGTERM, ask)
        signal.signal(signal.SIGINT, ask)
        run.tell("start", job_id=str(job.get("job_id", "")), pid=os.getpid())
        base_config(job)
        os.makedirs(run.output, exist_ok=True)
        train(run)
    except Exception as error:  # pylint: disable=broad-except
        failure = failure_of(error)
        print(f"{type(error).__name__}, from the last call to the first:", file=sys.stderr)
        frames = traceback.extract_tb(error.__traceback__)
        for frame in reversed(frames):
            print(f"  {frame.filename}:{frame.lineno} in {frame.name}", file=sys.stderr)
        run.tell("error", code=failure.code, cls=CLASSES[failure.code], message=failure.message)
        events.flush()
        sys.stderr.flush()
        # Threads of libraries do not hold up the end.
        os._exit(failure.code)
