//! The program's memory: the system's allocator, which keeps what a pass gives back for the next one, and large blocks on large
//! pages. A pass makes hundreds of tensors of some megabytes; of fresh small pages, a fifth of its time went to the system.

use std::alloc::{GlobalAlloc, Layout, System};

#[global_allocator]
static ALLOCATOR: LargePages = LargePages;

struct LargePages;

/// Size of a large page.
const LARGE: usize = 2 << 20;
/// How much the heap grows by at once; what is never written of it takes no memory.
const AHEAD: usize = 32 * LARGE;
/// Size of the smallest block for which it is asked.
const SHARED: usize = LARGE / 4;
/// Size from which a block has a mapping of its own: the most that glibc takes.
const OWN_MAPPING: usize = 32 << 20;

// SAFETY: every call goes to the system's allocator as it came; what [`advised`] does to a block changes neither its address, its
// size nor its contents.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for LargePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        advised(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !(SHARED..OWN_MAPPING).contains(&layout.size()) {
            // Small, or fresh from the system, which hands out zeros as they are written to.
            // SAFETY: the caller's promise.
            return advised(unsafe { System.alloc_zeroed(layout) }, layout.size());
        }
        // SAFETY: the caller's promise; the block is written after the advice, which comes too late for pages in use.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

/// The block, on large pages where the system has them: also those that it shares with its neighbours, and those of the heap's
/// unwritten end, where the allocator would be the first to write, a few bytes behind the block.
fn advised(block: *mut u8, size: usize) -> *mut u8 {
    #[cfg(target_os = "linux")]
    if size >= SHARED && !block.is_null() {
        let first = block as usize / LARGE * LARGE;
        let last = (block as usize + size + AHEAD).next_multiple_of(LARGE);
        // SAFETY: advice about pages changes no contents, whoever's they are, and is refused where there are none.
        #[allow(unsafe_code)]
        unsafe {
            libc::madvise(first as *mut libc::c_void, last - first, libc::MADV_HUGEPAGE)
        };
    }
    block
}

/// Blocks come from one heap and stay in it when they are given back. Called before there are threads.
pub fn keep() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let kept = [
            (libc::M_MMAP_THRESHOLD, OWN_MAPPING as i32),
            (libc::M_TRIM_THRESHOLD, i32::MAX),
            (libc::M_ARENA_MAX, 1),
            (libc::M_TOP_PAD, AHEAD as i32),
        ];
        for (what, value) in kept {
            // SAFETY: numbers that glibc takes or refuses; no memory is touched.
            #[allow(unsafe_code)]
            unsafe {
                libc::mallopt(what, value)
            };
        }
    }
}
