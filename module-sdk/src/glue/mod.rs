//! Interface between a module and the ABI: the only place of the SDK with `unsafe`.

mod guard;
mod heap;
mod instance;
mod own_thread;

use std::{
    cell::RefCell,
    net::TcpListener,
    os::fd::{FromRawFd as _, OwnedFd},
    sync::{PoisonError, RwLock},
};

pub(crate) use guard::contained;
pub use heap::return_free_memory;
#[cfg(feature = "testing")]
pub(crate) use instance::create;
pub(crate) use own_thread::{answered_call, is_own_thread};

use crate::{Host, host::WeakHost};

/// Items that [`export!`](crate::export) uses. Not for authors.
#[doc(hidden)]
pub mod export {
    pub use super::{
        heap::CountingAllocator,
        instance::{create, describe, validate},
    };
    pub use lodestar_abi::{
        BuildInfo, CreateRequest, HostBox, ModError, ModuleBox, ModuleRoot, ModuleRoot_Ref,
        abi_stable,
    };

    /// Version of the SDK that the module is built with.
    pub const SDK_VERSION: &str = env!("CARGO_PKG_VERSION");
}

/// Exports a [`Module`](crate::Module) from a `cdylib`. Once per crate, beside `module.toml`.
#[macro_export]
macro_rules! export {
    ($module:ty) => {
        #[doc(hidden)]
        #[expect(unsafe_code, reason = "the symbols by which the host finds the module")]
        mod __lodestar_export {
            use super::*;
            use sdk::abi_stable::{
                library::{CheckTypeLayout, LibHeader, RootModuleResult},
                prefix_type::WithMetadata,
                std_types::{RResult, RSlice, RVec},
            };
            use $crate::__export as sdk;

            #[global_allocator]
            static ALLOCATOR: sdk::CountingAllocator = sdk::CountingAllocator;

            #[used]
            #[unsafe(link_section = ".lodestar.build")]
            static BUILD_INFO: sdk::BuildInfo = sdk::BuildInfo::current(sdk::SDK_VERSION);

            const MANIFEST_TEXT: &[u8] =
                include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/module.toml"));

            #[used]
            #[unsafe(link_section = ".lodestar.manifest")]
            static MANIFEST: [u8; MANIFEST_TEXT.len()] = {
                let mut bytes = [0; MANIFEST_TEXT.len()];
                let mut at = 0;
                while at < bytes.len() {
                    bytes[at] = MANIFEST_TEXT[at];
                    at += 1;
                }
                bytes
            };

            extern "C" fn describe() -> RResult<RVec<u8>, sdk::ModError> {
                sdk::describe::<$module>()
            }

            extern "C" fn validate(config: RSlice<'_, u8>) -> RResult<(), sdk::ModError> {
                sdk::validate::<$module>(config)
            }

            extern "C" fn create(
                request: sdk::CreateRequest<'_>,
                host: sdk::HostBox,
            ) -> RResult<sdk::ModuleBox, sdk::ModError> {
                sdk::create::<$module>(request, host)
            }

            const ROOT: &WithMetadata<sdk::ModuleRoot> =
                &WithMetadata::new(sdk::ModuleRoot { describe, validate, create });

            extern "C" fn root() -> RootModuleResult {
                sdk::abi_stable::library::__call_root_module_loader(|| {
                    sdk::ModuleRoot_Ref(ROOT.static_as_prefix())
                })
            }

            // The name is what `abi_stable` looks for in a library; its own macro would need the
            // author to depend on that crate.
            //
            // SAFETY: `root` returns a `ModuleRoot_Ref`, the type that the header declares.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            pub static LIB_HEADER: LibHeader = unsafe {
                LibHeader::from_constructor::<sdk::ModuleRoot_Ref>(root, CheckTypeLayout::Yes)
            };
        }
    };
}

/// Takes ownership of the descriptor of a listening socket that the host handed over.
pub(crate) fn tcp_listener(descriptor: i32) -> TcpListener {
    TcpListener::from(owned(descriptor))
}

/// Takes ownership of a descriptor that the host handed over.
fn owned(descriptor: i32) -> OwnedFd {
    #[expect(unsafe_code, reason = "a raw descriptor from the host")]
    // SAFETY: the host duplicated it for this call and keeps no copy of the number.
    unsafe {
        OwnedFd::from_raw_fd(descriptor)
    }
}

/// Host that log records go to: the one of the newest instance in this library.
static LOG_HOST: RwLock<Option<Host>> = RwLock::new(None);

thread_local! {
    /// Host of the instance that this thread works for: it comes first, so that modules which run
    /// side by side in a test do not log into each other's benches. No thread keeps a host alive.
    static OWN_LOG_HOST: RefCell<Option<WeakHost>> = const { RefCell::new(None) };
}

pub(crate) fn set_log_host(host: Host) {
    set_own_log_host(host.downgrade());
    *LOG_HOST.write().unwrap_or_else(PoisonError::into_inner) = Some(host);
}

/// Sends what this thread logs from now on to a host.
pub(crate) fn set_own_log_host(host: WeakHost) {
    // An error means that the thread is ending.
    let _ = OWN_LOG_HOST.try_with(|own| own.replace(Some(host)));
}

pub(crate) fn clear_log_host(host: &Host) {
    let own = OWN_LOG_HOST.try_with(|own| {
        let is_it = own.borrow().as_ref().is_some_and(|known| known.is(host));
        if is_it { own.take() } else { None }
    });
    drop(own);
    let is_it = |known: &Option<Host>| known.as_ref().is_some_and(|known| known.is(host));
    let mut current = LOG_HOST.write().unwrap_or_else(PoisonError::into_inner);
    let old = if is_it(&current) { current.take() } else { None };
    drop(current);
    drop(old);
}

pub(crate) fn with_log_host(log: impl FnOnce(&Host)) {
    let own =
        OWN_LOG_HOST.try_with(|own| own.try_borrow().ok().and_then(|own| own.as_ref()?.upgrade()));
    if let Ok(Some(host)) = own {
        return log(&host);
    }
    // `try_read`: dropping a host may log, and a log line is not worth a deadlock.
    if let Ok(current) = LOG_HOST.try_read()
        && let Some(host) = current.as_ref()
    {
        log(host);
    }
}
