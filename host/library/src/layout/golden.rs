//! The snapshot of the layout of every type that crosses to a module, compared word by word.
//!
//! `LODESTAR_UPDATE_SNAPSHOTS=1 cargo test --release -p lodestar-library layout` writes it anew.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use lodestar_abi::{
    ModuleRoot_Ref,
    abi_stable::{
        StableAbi,
        std_types::utypeid::UTypeId,
        type_layout::{TLData, TLField, TypeLayout},
    },
};

/// Adds a page for every type of ours that can be reached from a type.
fn reach(layout: &'static TypeLayout, seen: &mut Vec<UTypeId>, pages: &mut BTreeSet<String>) {
    let id = layout.get_utypeid();
    if seen.contains(&id) {
        return;
    }
    seen.push(id);
    let fields = layout.get_fields().map(|fields| fields.to_vec()).unwrap_or_default();
    if layout.package() == "lodestar-abi" {
        pages.insert(page(layout, &fields));
    }
    for field in fields.iter().chain(&layout.phantom_fields().to_vec()) {
        reach(field.layout(), seen, pages);
        for function in field.function_range().iter() {
            for parameter in function.param_type_layouts.iter() {
                reach(parameter(), seen, pages);
            }
            if let Some(result) = function.return_type_layout() {
                reach(result(), seen, pages);
            }
        }
    }
}

fn page(layout: &TypeLayout, fields: &[TLField]) -> String {
    let mut page = format!(
        "{} in {}\n  {} bytes, alignment {}",
        layout.full_type(),
        layout.mod_path(),
        layout.size(),
        layout.alignment()
    );
    if let TLData::PrefixType(prefix) = layout.data() {
        let _ = write!(page, ", {} fields of the first release", prefix.first_suffix_field);
    }
    page.push('\n');
    for field in fields {
        let kind = field.layout();
        let (name, size) = (field.name(), kind.size());
        let _ = writeln!(page, "  {name}: {} ({size} bytes)", field.full_type());
        for function in field.function_range().iter() {
            let signature = function.to_string().replace('\n', " ");
            let _ = writeln!(page, "    {}", signature.trim_end());
        }
    }
    page
}

#[test]
fn the_layouts_are_those_that_modules_were_built_against() {
    let mut pages = BTreeSet::new();
    reach(<ModuleRoot_Ref as StableAbi>::LAYOUT, &mut Vec::new(), &mut pages);
    for name in ["Event", "CreateRequest", "ModError", "BatchOutcome"] {
        assert!(pages.iter().any(|page| page.starts_with(name)), "{name}: {pages:#?}");
    }
    let found = pages.into_iter().collect::<Vec<_>>().join("\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../module-sdk/abi/layout.txt");
    if std::env::var_os("LODESTAR_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &found).expect("the page can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (before, now) = (lines(&kept), lines(&found));
    let gone = before.iter().filter(|line| !now.contains(line)).map(|line| format!("- {line}"));
    let new = now.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}"));
    let difference = gone.chain(new).collect::<Vec<_>>().join("\n");
    assert!(
        kept == found,
        "the interface differs from module-sdk/abi/layout.txt; see module-sdk/abi/POLICY.md for \
         what may change, and the head of this test for how to write the page anew\n{difference}"
    );
}
