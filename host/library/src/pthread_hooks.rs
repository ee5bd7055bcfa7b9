//! Hooks between modules and three functions of the C library, to know what a module leaves behind,
//! thread-local keys and threads, and which module a thread works for.
//!
//! The C library has 1,024 thread-local keys for a process, and the standard library of Rust, of
//! which every module has a copy, makes one and never deletes it: without this every daemon would
//! end at about its thousandth reload. `lodestard` exports these symbols (`build.rs`), so that a
//! library that is mapped later binds to them rather than to the C library's. In a program that
//! does not export them nothing is seen, and nothing is reclaimed.
#![expect(unsafe_code, reason = "the C library's interface of threads")]

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    ffi::{CStr, c_int, c_void},
    ops::Range,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use libc::{pthread_attr_t, pthread_key_t, pthread_t, stack_t};
use memmap2::MmapMut;

/// Largest number of keys, glibc's `PTHREAD_KEYS_MAX`.
const KEYS: usize = 1024;

/// The destructor of each key, 0 where there is none or the key was not made through us.
static DESTRUCTORS: [AtomicUsize; KEYS] = [const { AtomicUsize::new(0) }; KEYS];

/// Threads whose first function is not of this program: their numbers, [`NOT_BEGUN`] before they
/// have one, and that function.
static FOREIGN: Mutex<Vec<(libc::pid_t, usize)>> = Mutex::new(Vec::new());

/// The number of a thread that is being started.
const NOT_BEGUN: libc::pid_t = 0;

thread_local! {
    /// Name of the module that this thread works for. Threads that it starts work for the same. It
    /// is read by a signal handler: no lock, no allocation, and names that stay.
    static OWNER: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// The modules that threads work for, and the threads that do, by their number.
static OWNERS: Mutex<Owners> = Mutex::new(Owners { modules: Vec::new(), threads: Vec::new() });

struct Owners {
    modules: Vec<&'static str>,
    threads: Vec<(libc::pid_t, &'static str)>,
}

type Destructor = unsafe extern "C" fn(*mut c_void);
/// First function of a thread. `pthread_exit` unwinds through it.
type StartRoutine = extern "C-unwind" fn(*mut c_void) -> *mut c_void;

unsafe extern "C" {
    /// Begin and end of the program's own code, from the linker.
    static __executable_start: u8;
    static etext: u8;
}

/// Returns the next definition of a symbol: the C library's.
fn next(name: &CStr) -> *mut c_void {
    // SAFETY: the name is a C string; the answer is checked by the callers.
    unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }
}

/// Makes a thread-local key and notes its destructor.
///
/// # Safety
///
/// As the C library's function of this name.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_key_create(
    key: *mut pthread_key_t,
    destructor: Option<Destructor>,
) -> c_int {
    type Real = unsafe extern "C" fn(*mut pthread_key_t, Option<Destructor>) -> c_int;
    static REAL: OnceLock<usize> = OnceLock::new();
    let real = *REAL.get_or_init(|| next(c"pthread_key_create") as usize);
    if real == 0 {
        return libc::EAGAIN;
    }
    // SAFETY: it is the C library's function of this name and type.
    let real = unsafe { std::mem::transmute::<usize, Real>(real) };
    // SAFETY: the caller's promises are those of the function.
    let result = unsafe { real(key, destructor) };
    if result == 0 {
        // SAFETY: the function has just written it.
        let number = unsafe { *key } as usize;
        if let Some(noted) = DESTRUCTORS.get(number) {
            noted.store(destructor.map_or(0, |it| it as usize), Ordering::Release);
        }
    }
    result
}

/// Deletes a thread-local key and forgets its destructor.
///
/// # Safety
///
/// As the C library's function of this name.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_key_delete(key: pthread_key_t) -> c_int {
    type Real = unsafe extern "C" fn(pthread_key_t) -> c_int;
    static REAL: OnceLock<usize> = OnceLock::new();
    let real = *REAL.get_or_init(|| next(c"pthread_key_delete") as usize);
    if real == 0 {
        return libc::EINVAL;
    }
    if let Some(noted) = DESTRUCTORS.get(key as usize) {
        noted.store(0, Ordering::Release);
    }
    // SAFETY: it is the C library's function of this name and type, with the caller's promises.
    unsafe { std::mem::transmute::<usize, Real>(real)(key) }
}

/// Starts a thread. Those of modules are noted by their number in the kernel.
///
/// # Safety
///
/// As the C library's function of this name.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_create(
    thread: *mut pthread_t,
    attributes: *const pthread_attr_t,
    start: StartRoutine,
    argument: *mut c_void,
) -> c_int {
    type Real = unsafe extern "C" fn(
        *mut pthread_t,
        *const pthread_attr_t,
        StartRoutine,
        *mut c_void,
    ) -> c_int;
    static REAL: OnceLock<usize> = OnceLock::new();
    let real = *REAL.get_or_init(|| next(c"pthread_create") as usize);
    if real == 0 {
        return libc::EAGAIN;
    }
    // SAFETY: it is the C library's function of this name and type.
    let real = unsafe { std::mem::transmute::<usize, Real>(real) };
    if is_own(start as usize) {
        // SAFETY: the caller's promises are those of the function.
        return unsafe { real(thread, attributes, start, argument) };
    }
    // Before it exists: whoever looks meanwhile must not take it for absent.
    expect_thread(start as usize);
    let noted = Box::into_raw(Box::new(Noted { start, argument, owner: OWNER.get() }));
    // SAFETY: as above; `begin` takes the box back.
    let result = unsafe { real(thread, attributes, begin, noted.cast()) };
    if result != 0 {
        // SAFETY: no thread was started that could have taken it.
        drop(unsafe { Box::from_raw(noted) });
        let mut foreign = foreign();
        if let Some(expected) = expected(&mut foreign, start as usize) {
            foreign.swap_remove(expected);
        }
    }
    result
}

/// Runs as the first function of a module's thread: notes it, then does what the module wanted.
extern "C-unwind" fn begin(noted: *mut c_void) -> *mut c_void {
    // SAFETY: `pthread_create` above made this box for this thread alone.
    let Noted { start, argument, owner } = *unsafe { Box::from_raw(noted.cast::<Noted>()) };
    // SAFETY: it has no conditions.
    let number = unsafe { libc::gettid() };
    let mut foreign = foreign();
    match expected(&mut foreign, start as usize) {
        Some(expected) => foreign[expected].0 = number,
        None => foreign.push((number, start as usize)),
    }
    drop(foreign);
    register(number, owner);
    have_signal_stack();
    // Nothing here may want to be dropped meanwhile: `pthread_exit` unwinds past this frame.
    let result = start(argument);
    unregister(number);
    result
}

/// Size of the stack of a signal handler, in bytes: the saved registers of a machine with wide ones
/// take 12 KiB.
const SIGNAL_STACK: usize = 64 << 10;

/// A stack for signals, given back when its thread ends, in whatever way.
struct SignalStack {
    _memory: MmapMut,
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        let none = stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: no handler runs on it: this does.
        unsafe { libc::sigaltstack(&raw const none, std::ptr::null_mut()) };
    }
}

/// Gives this thread a stack for signals. A library's own standard library gives its threads none,
/// and the end of a thread that has used up its stack could not be noted.
fn have_signal_stack() {
    thread_local! {
        static STACK: RefCell<Option<SignalStack>> = const { RefCell::new(None) };
    }
    let Ok(mut memory) = MmapMut::map_anon(SIGNAL_STACK) else { return };
    let stack = stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
    // SAFETY: the memory lives until it is taken back, at the end of this thread.
    if unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) } == 0 {
        STACK.set(Some(SignalStack { _memory: memory }));
    }
}

/// Notes a thread that is about to be started.
fn expect_thread(start: usize) {
    let mut foreign = foreign();
    if foreign.len() % 64 == 63 {
        foreign.retain(|(number, _)| is_alive(*number));
    }
    foreign.push((NOT_BEGUN, start));
}

/// Returns the index of one of the threads that begin with this function and have no number yet,
/// which are all alike.
fn expected(foreign: &mut [(libc::pid_t, usize)], start: usize) -> Option<usize> {
    foreign.iter().position(|thread| *thread == (NOT_BEGUN, start))
}

fn foreign() -> MutexGuard<'static, Vec<(libc::pid_t, usize)>> {
    FOREIGN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Argument of the first function of a module's thread.
struct Noted {
    start: StartRoutine,
    argument: *mut c_void,
    owner: Option<&'static str>,
}

/// Guard during whose lifetime a thread works for a module.
#[derive(Debug)]
pub struct Working {
    number: libc::pid_t,
}

impl Drop for Working {
    fn drop(&mut self) {
        unregister(self.number);
    }
}

/// Makes this thread work for a module until the guard is dropped, and so what it starts in the
/// module's library.
#[must_use]
pub fn work_for(module: &str) -> Working {
    // SAFETY: it has no conditions.
    let number = unsafe { libc::gettid() };
    let mut owners = owners();
    let known = owners.modules.iter().find(|known| **known == module).copied();
    let name = known.unwrap_or_else(|| {
        // Once for each module that there ever is.
        let name: &'static str = Box::leak(module.into());
        owners.modules.push(name);
        name
    });
    drop(owners);
    register(number, Some(name));
    Working { number }
}

/// Returns the module that this thread works for. Async-signal-safe.
#[must_use]
pub fn works_for() -> Option<&'static str> {
    OWNER.try_with(Cell::get).ok().flatten()
}

/// Registers this thread, of this number, as working for a module from now on, or for none.
fn register(number: libc::pid_t, owner: Option<&'static str>) {
    OWNER.set(owner);
    owners().threads.extend(owner.map(|owner| (number, owner)));
}

fn unregister(number: libc::pid_t) {
    OWNER.set(None);
    owners().threads.retain(|(known, _)| *known != number);
}

/// Returns the modules that threads of this process work for, by the threads' numbers. `listed` are
/// numbers of threads that live, in their order, of which the kernel need not be asked.
#[must_use]
pub fn workers(listed: &[u32]) -> HashMap<u32, String> {
    let mut owners = owners();
    // One that ended by `pthread_exit` has not said so.
    owners.threads.retain(|(number, _)| {
        u32::try_from(*number).is_ok_and(|it| listed.binary_search(&it).is_ok())
            || is_alive(*number)
    });
    let worker = |(number, owner): &(libc::pid_t, &'static str)| {
        Some((u32::try_from(*number).ok()?, (*owner).to_owned()))
    };
    owners.threads.iter().filter_map(worker).collect()
}

fn owners() -> MutexGuard<'static, Owners> {
    OWNERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether an address is of this program rather than of a library that it mapped.
fn is_own(address: usize) -> bool {
    let begin = (&raw const __executable_start) as usize;
    let end = (&raw const etext) as usize;
    (begin..end).contains(&address)
}

fn is_alive(number: libc::pid_t) -> bool {
    // SAFETY: signal 0 is sent to nobody; the kernel only says whether there is such a thread.
    let exists = || unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), number, 0) } == 0;
    number == NOT_BEGUN || exists()
}

/// Counts the living threads whose first function lies in a range of addresses.
pub(super) fn threads_in(range: &Range<usize>) -> usize {
    let mut foreign = foreign();
    foreign.retain(|(number, _)| is_alive(*number));
    foreign.iter().filter(|(_, start)| range.contains(start)).count()
}

/// Deletes the keys whose destructors lie in a range of addresses; returns their number. No thread
/// may run code of this range any more.
pub(super) fn reclaim_keys(range: &Range<usize>) -> usize {
    let mut reclaimed = 0;
    for (key, destructor) in DESTRUCTORS.iter().enumerate() {
        if range.contains(&destructor.load(Ordering::Acquire)) {
            let Ok(key) = pthread_key_t::try_from(key) else { continue };
            // SAFETY: the key's owner is the library in this range, of which no code runs again.
            reclaimed += usize::from(unsafe { pthread_key_delete(key) } == 0);
        }
    }
    reclaimed
}

/// Returns whether the handler of a signal lies in a range of addresses.
pub(super) fn handles_a_signal(range: &Range<usize>) -> bool {
    (1..=64).any(|signal| {
        // SAFETY: an all-zero `sigaction` is a valid value of this plain C type.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: it only reads the action there is, into a place of its type.
        let known = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } == 0;
        known && range.contains(&action.sa_sigaction)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn nothing(_: *mut c_void) {}

    #[test]
    fn keys_are_noted_and_reclaimed_by_their_destructors() {
        let mut key = 0;
        // SAFETY: the key is a place of its type, the destructor does nothing.
        assert_eq!(unsafe { pthread_key_create(&raw mut key, Some(nothing)) }, 0);
        let address = nothing as *const () as usize;
        assert_eq!(reclaim_keys(&(address..address + 1)), 1);
        assert_eq!(reclaim_keys(&(address..address + 1)), 0, "once");
    }

    #[test]
    fn a_thread_works_for_its_module_until_it_ends() {
        let mine = |module: &str| workers(&[]).values().filter(|it| *it == module).count();
        let working = work_for("a_module");
        assert_eq!(works_for(), Some("a_module"));
        let other = std::thread::spawn(|| {
            let _working = work_for("another_module");
            workers(&[]).into_values().filter(|it| it == "another_module").count()
        });
        assert_eq!(other.join().expect("no panic"), 1);
        assert_eq!((mine("a_module"), mine("another_module")), (1, 0));
        extern "C-unwind" fn count(_: *mut c_void) -> *mut c_void {
            let mine = workers(&[]).into_values().filter(|it| it == "a_module").count();
            std::ptr::without_provenance_mut(mine)
        }
        let noted =
            Box::new(Noted { start: count, argument: std::ptr::null_mut(), owner: OWNER.get() });
        let noted = Box::into_raw(noted) as usize;
        let started = std::thread::spawn(move || begin(noted as *mut c_void).addr());
        assert_eq!(started.join().expect("no panic"), 2, "what it starts works for the same");
        drop(working);
        assert_eq!((mine("a_module"), works_for()), (0, None));
    }

    #[test]
    fn a_thread_is_known_before_it_exists() {
        extern "C-unwind" fn idle(argument: *mut c_void) -> *mut c_void {
            argument
        }
        let start = idle as *const () as usize;
        let range = start..start + 1;
        expect_thread(start);
        assert_eq!(threads_in(&range), 1, "it is being started");
        let noted = Noted { start: idle, argument: std::ptr::null_mut(), owner: None };
        let noted = Box::into_raw(Box::new(noted)) as usize;
        std::thread::spawn(move || {
            begin(noted as *mut c_void);
            // SAFETY: it has no conditions.
            let number = unsafe { libc::gettid() };
            assert!(foreign().contains(&(number, start)), "it has a number");
        })
        .join()
        .expect("no panic");
        assert!(expected(&mut foreign(), start).is_none(), "and is noted once");
    }

    #[test]
    fn threads_of_this_program_are_not_foreign() {
        assert!(is_own(nothing as *const () as usize));
        assert!(!is_own(next(c"pthread_create") as usize));
        let own = nothing as *const () as usize;
        std::thread::spawn(move || assert_eq!(threads_in(&(own..own + 1)), 0))
            .join()
            .expect("no panic");
        assert!(!handles_a_signal(&(own..own + 1)));
    }
}
