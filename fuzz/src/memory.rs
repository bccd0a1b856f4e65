//! Memory that is counted: a block or a sum of blocks beyond the limits ends the process, as a finding, whether it is written to or not.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

struct Counted;

/// Bytes of a block, and of all blocks. Inputs are of some hundred kilobytes at most, and pictures of a million pixels.
const BLOCK: usize = 128 << 20;
const ALL: usize = 384 << 20;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

fn take(bytes: usize) {
    let all = TAKEN.fetch_add(bytes, Ordering::Relaxed) + bytes;
    if bytes > BLOCK || all > ALL {
        eprintln!("a block of {bytes} bytes is asked for, with which {all} are taken");
        std::process::abort();
    }
}

// SAFETY: the system's allocator, called as it is called.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        take(size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}
