//! A block of each thread's own that its signal handlers share.

/// Makes a function that gives the calling thread's block of a type: zeroed when the thread begins, which has to be valid for
/// the type. The name is the assembler's, and there is one of it in a program.
///
/// A handler may touch it at any instruction, so its address must cost no call: thread-local in the initial-exec model, for
/// which Rust has no word. The library is loaded with the program, never later, as that model demands.
#[macro_export]
#[doc(hidden)]
macro_rules! thread_block {
    ($visibility:vis fn $function:ident() -> $block:ty, $symbol:literal) => {
        #[cfg(target_arch = "x86_64")]
        ::core::arch::global_asm!(
            concat!(".pushsection .tbss.", $symbol, ", \"awT\", @nobits"),
            ".balign 16",
            concat!(".globl ", $symbol),
            concat!(".hidden ", $symbol),
            concat!(".type ", $symbol, ", @object"),
            concat!(".size ", $symbol, ", {bytes}"),
            concat!($symbol, ":"),
            ".zero {bytes}",
            ".popsection",
            bytes = const size_of::<$block>(),
        );

        /// The calling thread's block.
        #[cfg(target_arch = "x86_64")]
        #[inline]
        $visibility fn $function() -> &'static $block {
            const { assert!(align_of::<$block>() <= 16) };
            let at: *const $block;
            // SAFETY: reads the thread pointer and the variable's distance from it. The block is zeroed, which is valid, and
            // lives as long as the thread; the reference never leaves it.
            unsafe {
                ::core::arch::asm!(
                    "mov {at}, qword ptr fs:[0]",
                    concat!("add {at}, qword ptr [rip + ", $symbol, "@GOTTPOFF]"),
                    at = out(reg) at,
                    options(pure, nomem, nostack),
                );
                &*at
            }
        }

        /// The calling thread's block.
        #[cfg(not(target_arch = "x86_64"))]
        $visibility fn $function() -> &'static $block {
            ::std::thread_local! {
                // SAFETY: zeroes are valid for it.
                static BLOCK: $block = const { unsafe { ::core::mem::zeroed() } };
            }
            // SAFETY: it lives as long as the thread, and the reference never leaves it.
            BLOCK.with(|block| unsafe { &*::core::ptr::from_ref(block) })
        }
    };
}
