//! Lets libraries that `lodestard` maps bind to its own `pthread_key_create` and its kin, see
//! `src/library/pthread_hooks.rs`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for symbol in ["pthread_key_create", "pthread_key_delete", "pthread_create"] {
        println!("cargo::rustc-link-arg-bin=lodestard=-Wl,--export-dynamic-symbol={symbol}");
    }
}
