//! Sample answers of a daemon.

use lodestar_api::{ConfigView, Envelope, ModuleCommands, ModuleInfo, Status};
use serde_json::{Value, json};

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("it has the form")
}

fn tracker() -> Value {
    json!({
        "name": "usage_tracker", "version": "0.1.0", "desired": "enabled", "state": "failed",
        "reason": "the database is locked", "isolation": "in_process", "generation": 42,
        "health": {"status": "unknown", "message": ""},
        "events": {"accepted": 1247, "handled": 1204, "dead": 2, "dropped": 0, "pending": 41},
        "restarts": 5, "cpu_ms": 0, "memory_bytes": 0, "listeners": [], "lag_ms": 125_000,
        "recent": {"calls": 3, "p50_ns": 1_200_000, "p99_ns": 8_300_000},
        "calls": [
            {"kind": "events", "calls": 12, "items": 1206, "failures": 2, "p50_ns": 1_200_000,
             "p99_ns": 8_300_000, "max_ns": 9_000_000, "total_ns": 20_000_000},
            {"kind": "timer", "calls": 0, "p50_ns": null, "p99_ns": null},
        ],
    })
}

pub(crate) fn status() -> Status {
    let address = |name: &str, address: &str| json!({"name": name, "address": address});
    read(json!({
        "version": "0.1.0", "pid": 4711, "uptime_s": 11_550,
        "ledger": {"trouble": null, "failed_writes": 0, "bytes": 1_048_576},
        "cpu_ms": 4_200, "memory_bytes": 25_165_824, "threads": 17,
        "config_path": "/home/ada/.lodestar/modules.yaml", "state_dir": "/home/ada/.lodestar",
        "listeners": [address("metrics", "127.0.0.1:9464")],
        "modules": [
            {
                "name": "ingest", "version": "0.1.0", "desired": "enabled", "state": "running",
                "reason": null, "isolation": "in_process", "generation": 1,
                "health": {"status": "ok", "message": ""},
                "events": {"accepted": 0, "handled": 0, "dead": 0, "dropped": 0, "pending": 0},
                "restarts": 0, "cpu_ms": 12, "memory_bytes": 2_097_152, "threads": 3,
                "listeners": [address("http", "127.0.0.1:4318")],
            },
            tracker(),
        ],
    }))
}

pub(crate) fn info() -> ModuleInfo {
    let mut info = tracker();
    let more = json!({
        "description": "Tokens, cost and sessions.", "command": "usage",
        "commands": ["summary", "export"], "timers": [{"name": "retain", "every_ms": 60_000}],
        "since": "2026-11-21T01:50:17.000Z", "resident_generations": 2,
        "last_errors": [{"time": "2026-11-21T01:50:17.000Z", "place": "completed",
                         "message": "the database is locked"}],
    });
    let (Some(info_map), Value::Object(more)) = (info.as_object_mut(), more) else {
        unreachable!("both are objects")
    };
    info_map.extend(more);
    read(info)
}

pub(crate) fn config() -> ConfigView {
    read(json!({
        "path": "/home/ada/.lodestar/modules.yaml",
        "text": "modules:\n  ingest:\n    enabled: true # live\n",
        "modules": {"ingest": {"enabled": true, "api_key": "${INGEST_KEY}"}},
    }))
}

pub(crate) fn envelope() -> Envelope {
    read(json!({
        "specversion": "1.0", "id": "019aa3c1-7b5e-7000-8000-000000000001",
        "source": "/lodestar/ingest", "type": "llm.request.completed",
        "time": "2026-11-21T01:50:17.123Z", "subject": "s\u{1b}1", "data": {"input_tokens": 3},
        "sequence": 9, "class": "ledger",
    }))
}

/// Returns a command with every kind of argument, in the form that schemars writes.
pub(crate) fn module_commands() -> ModuleCommands {
    let summary = json!({
        "type": "object", "additionalProperties": false,
        "description": "Shows what was used.\n\nMoney is exact.",
        "properties": {
            "since": {"type": ["string", "null"], "default": "30d", "description": "From when."},
            "by": {"description": "The grouping of the rows.", "default": "model",
                   "$ref": "#/$defs/By"},
            "limit": {"type": "integer", "format": "uint32", "minimum": 0, "maximum": 1000,
                      "description": "The most rows", "default": 20},
            "least": {"type": ["number", "null"], "description": "The least cost"},
            "only_errors": {"type": "boolean", "default": false, "description": "Failures only"},
            "rounded": {"type": "boolean", "default": true, "description": "Round the money"},
            "model": {"type": "array", "items": {"type": "string"}, "default": [],
                      "description": "Of these models"},
            "json": {"type": ["string", "null"], "description": "Collides with an option of ours"},
        },
        "$defs": {"By": {"oneOf": [
            {"type": "string", "const": "model", "description": "The model that answered."},
            {"type": "string", "const": "day", "description": "The day."},
        ]}},
    });
    let show = json!({
        "type": "object", "required": ["sessions"],
        "properties": {"sessions": {"type": "array", "items": {"type": "string"},
                                    "x-positional": true, "description": "The sessions"}},
    });
    let export = json!({
        "type": "object",
        "properties": {"format": {"anyOf": [{"type": "string", "enum": ["jsonl", "csv"]},
                                            {"type": "null"}],
                                  "description": "The form of the rows"}},
    });
    read(json!({
        "module": "usage_tracker", "command": "usage", "aliases": ["usage_tracker"],
        "about": "Tokens, cost and sessions.", "default_command": "summary",
        "commands": [
            {"name": "summary", "about": "Shows what was used.\n\nMoney is exact.",
             "args": summary, "streams": false},
            {"name": "show", "about": "Shows sessions.", "args": show, "streams": false},
            {"name": "export", "about": "Writes every request.", "args": export, "streams": true},
        ],
    }))
}
