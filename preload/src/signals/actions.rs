//! sigaction() and its kin. The kernel is told of our trampoline; here stands what the application set.
//!
//! SA_RESETHAND is ours to do: a handler that was put off must still be there when its time comes.

use super::{LIBC_SIGNALS, SIGNALS, faults, trampoline};
use crate::real::Real;
use crate::sys;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use libc::{EINVAL, SA_RESETHAND, SA_RESTART, SA_SIGINFO, SIG_DFL, SIG_ERR, SIG_IGN, c_int, siginfo_t, ucontext_t};

/// sysv_signal()'s SA_INTERRUPT: means nothing, is read back.
const SA_INTERRUPT: c_int = 0x2000_0000;
const SIG_HOLD: usize = 2;
/// libc sets it in every action, where the kernel has it, and it is read back.
const SA_RESTORER: c_int = if cfg!(target_arch = "x86_64") { 0x0400_0000 } else { 0 };

pub(crate) type Handler = unsafe extern "C-unwind" fn(c_int, *mut siginfo_t, *mut ucontext_t);
type Action = libc::sigaction;

/// What the application set for one signal.
pub(super) struct Slot {
    handler: AtomicUsize,
    flags: AtomicI32,
    /// The first word of the mask, which is all that Linux has.
    mask: AtomicU64,
}

static SLOTS: [Slot; SIGNALS] = [const { Slot::empty() }; SIGNALS];
/// The process whose memory this is, to tell the child of a vfork, whose actions are its own, from ourselves.
static PID: AtomicU32 = AtomicU32::new(0);
/// Signals that siginterrupt() was called for: signal() installs them without SA_RESTART.
static INTERRUPTING: AtomicU64 = AtomicU64::new(0);
static REAL: Real = Real::new(c"sigaction");

impl Slot {
    const fn empty() -> Slot {
        Slot { handler: AtomicUsize::new(SIG_DFL), flags: AtomicI32::new(0), mask: AtomicU64::new(0) }
    }

    fn store(&self, action: &Action) {
        self.flags.store(action.sa_flags, Ordering::Relaxed);
        self.mask.store(first_word(action), Ordering::Relaxed);
        self.handler.store(action.sa_sigaction, Ordering::Release);
    }

    pub(super) fn handler(&self) -> usize {
        self.handler.load(Ordering::Acquire)
    }
}

pub(super) fn slot(signal: c_int) -> Option<&'static Slot> {
    SLOTS.get(usize::try_from(signal).ok()?)
}

fn first_word(action: &Action) -> u64 {
    // SAFETY: libc's mask is larger than a word, and of integers.
    unsafe { core::ptr::from_ref(&action.sa_mask).cast::<u64>().read_unaligned() }
}

fn empty_action() -> Action {
    // SAFETY: all zeroes is SIG_DFL with no flags and an empty mask.
    unsafe { core::mem::zeroed() }
}

pub(super) fn at_load() {
    extern "C" fn in_child() {
        PID.store(sys::getpid() as u32, Ordering::Relaxed);
        crate::thread::current().tid.store(0, Ordering::Relaxed);
        super::deferred::after_fork();
    }
    PID.store(sys::getpid() as u32, Ordering::Relaxed);
    // SAFETY: a handler of this library, which is never unloaded.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

fn is_own_process() -> bool {
    PID.load(Ordering::Relaxed) == sys::getpid() as u32
}

/// libc's own sigaction(): the kernel's, with libc's way back from a handler.
pub(super) fn set_real(signal: c_int, new: *const Action, old: *mut Action) -> c_int {
    let at = REAL.address();
    if at.is_null() {
        sys::set_errno(libc::ENOSYS);
        return -1;
    }
    // SAFETY: libc's function of this type; both are null or good.
    unsafe {
        let real: unsafe extern "C" fn(c_int, *const Action, *mut Action) -> c_int = core::mem::transmute(at);
        real(signal, new, old)
    }
}

fn is_ours(action: &Action) -> bool {
    action.sa_sigaction == trampoline as *const () as usize
}

/// What the kernel holds for what the application wants. Faults come to us also when it has no handler for them.
fn for_kernel(signal: c_int, wanted: &Action) -> Option<Action> {
    let is_handler = wanted.sa_sigaction > SIG_IGN;
    if !is_handler {
        return faults::is_watched(signal).then(faults::action);
    }
    let mut action = *wanted;
    action.sa_sigaction = trampoline as *const () as usize;
    action.sa_flags = wanted.sa_flags & !SA_RESETHAND | SA_SIGINFO;
    Some(action)
}

/// What the application reads back of what the kernel holds.
fn translate(signal: c_int, kernel: &Action) -> Action {
    let mut action = *kernel;
    if let Some(slot) = slot(signal).filter(|_| is_ours(kernel)) {
        action.sa_sigaction = slot.handler();
        let flags = slot.flags.load(Ordering::Relaxed);
        let replaced = SA_SIGINFO | SA_RESETHAND;
        action.sa_flags = kernel.sa_flags & !replaced | flags & replaced;
        if faults::is_fault(signal) && slot.handler() <= SIG_IGN {
            action = empty_action();
            (action.sa_sigaction, action.sa_flags) = (slot.handler(), flags);
            // SAFETY: as in `first_word`.
            unsafe { (&raw mut action.sa_mask).cast::<u64>().write_unaligned(slot.mask.load(Ordering::Relaxed)) };
        }
    }
    action
}

fn may_be_handled(signal: c_int) -> bool {
    (1..SIGNALS as c_int).contains(&signal)
        && !LIBC_SIGNALS.contains(&signal)
        && !matches!(signal, libc::SIGKILL | libc::SIGSTOP)
}

/// sigaction(2).
///
/// # Safety
/// As for the function of libc.
pub(super) unsafe fn set(signal: c_int, new: *const Action, old: *mut Action) -> c_int {
    if !may_be_handled(signal) {
        return set_real(signal, new, old);
    }
    // SAFETY: the caller's promise.
    let wanted = (!new.is_null()).then(|| unsafe { *new });
    let mut kernel = empty_action();
    let done = match &wanted {
        Some(wanted) => set_wanted(signal, wanted, &mut kernel),
        None => {
            let done = set_real(signal, core::ptr::null(), &raw mut kernel);
            kernel = translate(signal, &kernel);
            done
        }
    };
    if done == 0 && !old.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *old = kernel };
    }
    done
}

/// Installs; `before` becomes what the application reads back of the old action.
fn set_wanted(signal: c_int, wanted: &Action, before: &mut Action) -> c_int {
    let (Some(slot), true) = (slot(signal), is_own_process()) else {
        let done = set_real(signal, wanted, before);
        *before = translate(signal, before);
        return done;
    };
    let done = set_real(signal, core::ptr::null(), before);
    *before = translate(signal, before);
    match for_kernel(signal, wanted) {
        _ if done != 0 => done,
        Some(action) => {
            // Before the kernel knows: a signal may come at once.
            slot.store(&Action { sa_flags: wanted.sa_flags | SA_RESTORER, ..*wanted });
            set_real(signal, &raw const action, core::ptr::null_mut())
        }
        // A handler that is on its way still finds its address in the slot.
        None => set_real(signal, wanted, core::ptr::null_mut()),
    }
}

/// The trampoline has nothing of its own for this signal any more: as for a handler that SA_RESETHAND took away.
fn reset(signal: c_int, handler: usize) {
    let mut action = empty_action();
    set_real(signal, core::ptr::null(), &raw mut action);
    let Some(slot) = slot(signal) else { return };
    let mut wanted = translate(signal, &action);
    if wanted.sa_sigaction != handler {
        return; // set anew meanwhile
    }
    wanted.sa_sigaction = SIG_DFL;
    match for_kernel(signal, &wanted) {
        Some(action) => {
            slot.store(&wanted);
            set_real(signal, &raw const action, core::ptr::null_mut());
        }
        None => {
            set_real(signal, &raw const wanted, core::ptr::null_mut());
        }
    }
}

/// The handler that is to run now, and the flags it was installed with.
pub(super) fn take_handler(signal: c_int) -> Option<(Handler, c_int)> {
    let slot = slot(signal)?;
    let (handler, flags) = (slot.handler(), slot.flags.load(Ordering::Relaxed));
    if handler <= SIG_IGN {
        return None;
    }
    if flags & SA_RESETHAND != 0 {
        reset(signal, handler);
    }
    // SAFETY: the application installed it as a handler. One that takes the number alone ignores the rest.
    Some((unsafe { core::mem::transmute::<usize, Handler>(handler) }, flags))
}

/// The kernel's default for a signal that is ours to watch: what comes next is decided there.
pub(crate) fn restore_default(signal: c_int) {
    let action = empty_action();
    set_real(signal, &raw const action, core::ptr::null_mut());
}

/// Begins to watch a fault signal; what the application set for it stays what it reads back.
pub(super) fn watch(signal: c_int) {
    let mut current = empty_action();
    if set_real(signal, core::ptr::null(), &raw mut current) != 0 || current.sa_sigaction > SIG_IGN {
        return; // the application's handler, through our trampoline; or one that was installed past us
    }
    if let Some(slot) = slot(signal) {
        slot.store(&current);
        let action = faults::action();
        set_real(signal, &raw const action, core::ptr::null_mut());
    }
}

/// Whether every handler that was installed past us was installed with SA_RESTART.
pub(super) fn unseen_handlers_restart() -> bool {
    let ours = trampoline as *const () as u64;
    (1..SIGNALS as c_int)
        .filter(|signal| !LIBC_SIGNALS.contains(signal))
        .filter_map(sys::handler)
        .filter(|(handler, _)| *handler != ours)
        .all(|(_, flags)| flags & SA_RESTART as u64 != 0)
}

// ---- the other ways to say it ----

/// An action for the handler alone.
fn simple(handler: usize, flags: c_int, mask: u64) -> Action {
    let mut action = empty_action();
    (action.sa_sigaction, action.sa_flags) = (handler, flags);
    // SAFETY: as in `first_word`.
    unsafe { (&raw mut action.sa_mask).cast::<u64>().write_unaligned(mask) };
    action
}

fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

fn install(signal: c_int, handler: usize, flags: c_int, mask: u64) -> usize {
    let (wanted, mut before) = (simple(handler, flags, mask), empty_action());
    // SAFETY: both are ours.
    match unsafe { set(signal, &raw const wanted, &raw mut before) } {
        0 => before.sa_sigaction,
        _ => SIG_ERR,
    }
}

fn refuse() -> usize {
    sys::set_errno(EINVAL);
    SIG_ERR
}

/// signal() as BSD has it.
pub(super) fn signal(signal: c_int, handler: usize) -> usize {
    if handler == SIG_ERR || !(1..SIGNALS as c_int).contains(&signal) {
        return refuse();
    }
    let interrupts = INTERRUPTING.load(Ordering::Relaxed) & bit(signal) != 0;
    install(signal, handler, if interrupts { 0 } else { SA_RESTART }, bit(signal))
}

/// signal() as System V has it: once, and without a mask.
pub(super) fn sysv_signal(signal: c_int, handler: usize) -> usize {
    if handler == SIG_ERR || !(1..SIGNALS as c_int).contains(&signal) {
        return refuse();
    }
    install(signal, handler, SA_RESETHAND | libc::SA_NODEFER | SA_INTERRUPT, 0)
}

/// sigset(): System V's, which also blocks and unblocks.
pub(super) fn sigset(signal: c_int, handler: usize) -> usize {
    if handler == SIG_ERR || !(1..SIGNALS as c_int).contains(&signal) {
        return refuse();
    }
    if handler == SIG_HOLD {
        let was_blocked = sys::change_signal_mask(libc::SIG_BLOCK, bit(signal)) & bit(signal) != 0;
        let mut before = empty_action();
        // SAFETY: `before` is ours.
        let known = unsafe { set(signal, core::ptr::null(), &raw mut before) } == 0;
        return if was_blocked { SIG_HOLD } else { if known { before.sa_sigaction } else { SIG_ERR } };
    }
    let before = install(signal, handler, 0, 0);
    if before == SIG_ERR {
        return before;
    }
    let was_blocked = sys::change_signal_mask(libc::SIG_UNBLOCK, bit(signal)) & bit(signal) != 0;
    if was_blocked { SIG_HOLD } else { before }
}

/// siginterrupt(): whether a handler, set or to come, ends calls.
pub(super) fn siginterrupt(signal: c_int, ends: c_int) -> c_int {
    let mut action = empty_action();
    // SAFETY: `action` is ours.
    if unsafe { set(signal, core::ptr::null(), &raw mut action) } != 0 {
        return -1;
    }
    if ends != 0 {
        INTERRUPTING.fetch_or(bit(signal), Ordering::Relaxed);
        action.sa_flags &= !SA_RESTART;
    } else {
        INTERRUPTING.fetch_and(!bit(signal), Ordering::Relaxed);
        action.sa_flags |= SA_RESTART;
    }
    // SAFETY: as above.
    unsafe { set(signal, &raw const action, core::ptr::null_mut()) }
}
