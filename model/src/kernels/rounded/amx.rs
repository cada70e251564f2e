//! Tiles on AMX-BF16 (Sapphire Rapids and later): 8,192 products and 256 sums an instruction.
//!
//! The instructions work on eight registers of 16 lines of 64 bytes. A process asks Linux for them
//! once, and a thread says how large they are before it multiplies.
//!
//! Sources: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18;
//! Linux, Documentation/arch/x86/xstate.rst.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::LazyLock;

use super::avx512;
use super::pairs::{COLS, Pair, Tiles};
use super::panels::{Layout, SIDE, Square};

/// Rows of a tile: two registers of rows and two of columns make four of sums.
const ROWS: usize = 32;
/// Bytes of a line of a register.
const LINE: usize = 64;

/// Proof that this processor has the instructions, and that this process may use them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Amx(());

impl Amx {
    pub(super) fn try_new() -> Option<Self> {
        static IS_THERE: LazyLock<bool> = LazyLock::new(|| {
            let features = __cpuid_count(7, 0).edx;
            let (bf16, tiles) = (1 << 22, 1 << 24);
            let has_them = features & bf16 != 0 && features & tiles != 0;
            has_them && is_x86_feature_detected!("avx512f") && is_permitted()
        });
        IS_THERE.then_some(Self(()))
    }
}

/// Asks for the registers' contents to be kept when the system changes threads.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    #[expect(unsafe_code, reason = "a call of the system")]
    // SAFETY: it takes two numbers, and changes what this process may do.
    let error = unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        )
    };
    error == 0
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// Sizes of the registers, as the processor reads them.
#[repr(C, align(64))]
struct Sizes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    line_bytes: [u16; 16],
    lines: [u8; 16],
}

/// All eight registers, whole.
static SIZES: Sizes = Sizes {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    line_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    lines: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

impl Tiles for Amx {
    const ROWS: usize = ROWS;
    const LAYOUT: Layout = Layout::Runs;
    /// A panel of rows, and one of columns, is 32 KiB then.
    const MAX_INNER: usize = 512;

    fn scope(self, work: impl FnOnce()) {
        #[expect(unsafe_code, reason = "instructions that not every processor has")]
        // SAFETY: a value of this type is made only where they are there, and `SIZES` are valid.
        unsafe {
            asm!(
                "ldtilecfg [{}]",
                in(reg) &raw const SIZES,
                options(nostack, preserves_flags, readonly),
            );
        }
        work();
        #[expect(unsafe_code, reason = "instructions that not every processor has")]
        // SAFETY: as above; nothing is left in the registers that somebody reads.
        unsafe {
            asm!("tilerelease", options(nomem, nostack, preserves_flags));
        }
    }

    fn multiply(self, rows: &[Pair], cols: &[Pair], sums: &mut [f32]) {
        let num_squares = rows.len() / (ROWS * SIDE);
        assert!(num_squares > 0, "a panel of nothing");
        assert_eq!(rows.len(), num_squares * ROWS * SIDE, "pairs of rows");
        assert_eq!(cols.len(), num_squares * COLS * SIDE, "pairs of columns");
        assert_eq!(sums.len(), ROWS * COLS, "sums of a tile");
        #[expect(unsafe_code, reason = "instructions that not every processor has")]
        // SAFETY: a value of this type is made only where they are there, and this is called in
        // `scope`. Each round reads 2 KiB of either panel, as many as were counted; the sums are
        // 4 KiB. The registers are named as changed.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{rows} + {line}]",
                "tileloadd tmm6, [{cols} + {two_lines}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{cols} + {two_lines} + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{rows} + {line} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {rows}, 2048",
                "add {cols}, 2048",
                "dec {squares}",
                "jnz 2b",
                "tilestored [{sums} + {two_lines}], tmm0",
                "tilestored [{sums} + {two_lines} + 64], tmm1",
                "tilestored [{sums} + {two_lines} + 2048], tmm2",
                "tilestored [{sums} + {two_lines} + 2112], tmm3",
                rows = inout(reg) rows.as_ptr() => _,
                cols = inout(reg) cols.as_ptr() => _,
                squares = inout(reg) num_squares => _,
                sums = in(reg) sums.as_mut_ptr(),
                line = in(reg) LINE,
                two_lines = in(reg) 2 * LINE,
                out("tmm0") _,
                out("tmm1") _,
                out("tmm2") _,
                out("tmm3") _,
                out("tmm4") _,
                out("tmm5") _,
                out("tmm6") _,
                out("tmm7") _,
                options(nostack),
            );
        }
    }

    fn turn(self, square: &mut Square) {
        #[expect(unsafe_code, reason = "instructions that not every processor has")]
        // SAFETY: a value of this type is made only where AVX-512 is there.
        unsafe {
            avx512::turn(square);
        }
    }
}
