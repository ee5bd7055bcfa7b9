use crate::http::Site;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
#[test]
fn fixtures() {
    let Ok(root) = std::env::var("FIXTURES") else { return };
    let mut dirs: Vec<_> = std::fs::read_dir(&root)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir())
        .collect();
    dirs.sort();
    let rev = std::env::var("REV").is_ok();
    for dir in dirs {
        let mut site = Site::plain();
        let mut files: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.to_str().unwrap().ends_with(".meta.json"))
            .collect();
        files.sort();
        if rev {
            files.reverse();
        }
        for meta in files {
            let m: serde_json::Value =
                serde_json::from_slice(&std::fs::read(&meta).unwrap()).unwrap();
            let base = meta.to_str().unwrap().trim_end_matches(".meta.json").to_owned();
            let body = ["bin", "json", "body"]
                .iter()
                .find_map(|e| std::fs::read(format!("{base}.{e}")).ok())
                .unwrap();
            let h: Vec<(String, String)> = m["headers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|p| (p[0].as_str().unwrap().to_lowercase(), p[1].as_str().unwrap().to_owned()))
                .filter(|(n, _)| {
                    n == "content-type"
                        || (n == "content-encoding"
                            && m["bytes"] == json!(body.len())
                            && m["bytes_plain"] != m["bytes"])
                })
                .collect();
            let hr: Vec<(&str, &str)> = h.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            let a = site.post(m["path"].as_str().unwrap(), &hr, &body);
            if a.status != 200 || a.text().contains("ejected") {
                println!("{base} {} {}", a.status, a.text());
            }
        }
        let mut by: BTreeMap<String, Vec<module_sdk::events::LlmRequestCompleted>> =
            BTreeMap::new();
        for r in site.requests() {
            by.entry(r.dedupe_key.clone()).or_default().push(r);
        }
        let mut t = BTreeMap::new();
        let mut st: BTreeSet<String> = BTreeSet::new();
        for (k, mut rs) in by.clone() {
            rs.sort_by_key(|r| {
                r.source
                    .map(|s| module_sdk::events::RequestSource::ALL.iter().position(|x| *x == s))
            });
            let f = |g: fn(&module_sdk::events::LlmRequestCompleted) -> Option<u64>| {
                rs.iter().find_map(g).unwrap_or(0)
            };
            *t.entry("input").or_insert(0) += f(|r| r.input_tokens);
            *t.entry("output").or_insert(0) += f(|r| r.output_tokens);
            *t.entry("cache_read").or_insert(0) += f(|r| r.cache_read_tokens);
            *t.entry("w5").or_insert(0) += f(|r| r.cache_write_5m_tokens);
            *t.entry("w1h").or_insert(0) += f(|r| r.cache_write_1h_tokens);
            *t.entry("reasoning").or_insert(0) += f(|r| r.reasoning_tokens);
            *t.entry(if rs[0].status == Some(module_sdk::events::RequestStatus::Ok) {
                "#ok"
            } else {
                "#error"
            })
            .or_insert(0) += 1;
            st.insert(format!("{k} x{}", rs.len()));
        }
        println!("== {:?} requests {} {t:?} {st:?}", dir.file_name().unwrap(), by.len());
        if std::env::var("ROWS").is_ok() {
            for r in site.requests() {
                println!("   {}", serde_json::to_string(&r).unwrap());
            }
            let s = site.bench.command("sources", json!({})).unwrap();
            for r in s.data["rows"].as_array().unwrap() {
                println!(
                    "   {} {} {} {} {} {}",
                    r["source"], r["signal"], r["record"], r["outcome"], r["count"], r["reason"]
                );
            }
        }
    }
}
