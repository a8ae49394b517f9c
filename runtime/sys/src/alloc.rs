//! Memory for a program that lives for milliseconds: blocks are cut from a few large pieces, and what is freed waits in a list of
//! its size. A general allocator asks the kernel for memory in groups and gives it back: 70 calls and 45 page faults for a `run`.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

/// Every block's size is a multiple of it, and so every block is aligned to it.
const GRAIN: usize = 16;
/// Up to here there is a list for each multiple of [`GRAIN`]; above there are four for each doubling.
const FINE: usize = 128;
/// Blocks above this are the kernel's own mappings. No more than that much of a piece is ever left over.
const LARGE: usize = 16 << 10;
/// How much is asked of the kernel at once.
const PIECE: usize = 32 << 10;
/// The first piece needs no call, and is enough for a process that only seals itself.
const FIRST: usize = 4 << 10;
/// Eight fine lists, and four for each doubling from [`FINE`] to [`LARGE`].
const LISTS: usize = FINE / GRAIN + 4 * (LARGE / FINE).ilog2() as usize;

/// The allocator. Sound with threads, made for one.
pub struct Pool {
    busy: AtomicBool,
    inner: UnsafeCell<Inner>,
    first: UnsafeCell<[Grain; FIRST / GRAIN]>,
}

/// As large as [`GRAIN`], and aligned to it.
type Grain = u128;

struct Inner {
    /// What is left of the piece.
    next: *mut u8,
    left: usize,
    begun: bool,
    /// The first free block of each size; a free block begins with the address of the next.
    free: [*mut u8; LISTS],
}

// SAFETY: `inner` and `first` are touched only by whoever holds `busy`.
unsafe impl Sync for Pool {}

impl Pool {
    /// Empty.
    #[allow(clippy::new_without_default, reason = "a static needs a const fn")]
    pub const fn new() -> Pool {
        Pool {
            busy: AtomicBool::new(false),
            inner: UnsafeCell::new(Inner { next: null_mut(), left: 0, begun: false, free: [null_mut(); LISTS] }),
            first: UnsafeCell::new([0; FIRST / GRAIN]),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        while self.busy.swap(true, Ordering::Acquire) {
            spin_loop();
        }
        // SAFETY: `busy` was free and is ours, and the closure cannot come back here.
        let done = work(unsafe { &mut *self.inner.get() });
        self.busy.store(false, Ordering::Release);
        done
    }

    /// A block of a list's size.
    fn block(&self, list: usize) -> *mut u8 {
        self.with(|inner| {
            let Some(head) = inner.free.get_mut(list) else { return null_mut() };
            if !head.is_null() {
                let block = *head;
                // SAFETY: a free block holds the address of the next one, written by `dealloc`.
                *head = unsafe { block.cast::<*mut u8>().read() };
                return block;
            }
            let size = size_of_list(list);
            if inner.left < size {
                if inner.begun || size > FIRST {
                    let piece = map(PIECE, libc::MAP_POPULATE);
                    if piece.is_null() {
                        return piece;
                    }
                    (inner.next, inner.left) = (piece, PIECE);
                } else {
                    (inner.next, inner.left) = (self.first.get().cast(), FIRST);
                }
                inner.begun = true;
            }
            let block = inner.next;
            // SAFETY: `left` says that the piece has this much room.
            inner.next = unsafe { block.add(size) };
            inner.left -= size;
            block
        })
    }
}

/// The list of a size and an alignment; `None`: too large for the lists.
fn list_of(layout: Layout) -> Option<usize> {
    if layout.align() > GRAIN || layout.size() > LARGE {
        return None;
    }
    let size = layout.size().max(1);
    if size <= FINE {
        return Some((size - 1) / GRAIN);
    }
    // 129..=256 has the lists 160, 192, 224, 256.
    let doubling = (size - 1).ilog2();
    let quarter = ((size - 1) >> (doubling - 2)) & 3;
    Some(FINE / GRAIN + 4 * (doubling - FINE.ilog2()) as usize + quarter)
}

fn size_of_list(list: usize) -> usize {
    if list < FINE / GRAIN {
        return (list + 1) * GRAIN;
    }
    let (doubling, quarter) = ((list - FINE / GRAIN) / 4, (list - FINE / GRAIN) % 4);
    (FINE << doubling) + (quarter + 1) * (FINE << doubling) / 4
}

fn map(size: usize, flags: i32) -> *mut u8 {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags);
    // SAFETY: a new mapping wherever the kernel has room; the pointer is looked at below.
    let memory = unsafe { libc::mmap(null_mut(), size, protection, flags, -1, 0) };
    if memory == libc::MAP_FAILED { null_mut() } else { memory.cast() }
}

/// The kernel's mappings are of whole pages, and aligned to one.
const PAGE: usize = 4096;

// SAFETY: a block belongs to its caller from `alloc` to `dealloc`: it is cut off once, or taken from a list that `dealloc` alone
// fills. It is as large as its list says, which is no less than asked for, and aligned to GRAIN; a mapping is aligned to PAGE,
// and what wants more gets nothing.
unsafe impl GlobalAlloc for Pool {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match list_of(layout) {
            Some(list) => self.block(list),
            None if layout.align() > PAGE => null_mut(),
            None => map(layout.size(), 0),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(list) = list_of(layout) else {
            // SAFETY: `alloc` has mapped it, with this size.
            unsafe { libc::munmap(block.cast(), layout.size()) };
            return;
        };
        self.with(|inner| {
            if let Some(head) = inner.free.get_mut(list) {
                // SAFETY: the block is nobody's now, has room for a pointer and is aligned for one.
                unsafe { block.cast::<*mut u8>().write(*head) };
                *head = block;
            }
        });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises a size that is valid with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (list_of(layout), list_of(wanted)) {
            (Some(old), Some(new)) if old == new => return block,
            (None, None) if layout.align() <= PAGE => {
                // SAFETY: `alloc` has mapped it, with this size.
                let moved = unsafe { libc::mremap(block.cast(), layout.size(), size, libc::MREMAP_MAYMOVE) };
                return if moved == libc::MAP_FAILED { null_mut() } else { moved.cast() };
            }
            (Some(old), Some(new)) if new > old && self.grow(block, old, new) => return block,
            _ => {}
        }
        // SAFETY: as promised to us; the two blocks do not overlap.
        unsafe {
            let new = self.alloc(wanted);
            if !new.is_null() {
                std::ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

impl Pool {
    /// Makes the block that was cut off last larger where it is.
    fn grow(&self, block: *mut u8, old: usize, new: usize) -> bool {
        self.with(|inner| {
            let (old, new) = (size_of_list(old), size_of_list(new));
            // SAFETY: the block has this size.
            let last = unsafe { block.add(old) } == inner.next;
            let fits = last && new - old <= inner.left;
            if fits {
                // SAFETY: `left` says that the piece has this much room.
                inner.next = unsafe { inner.next.add(new - old) };
                inner.left -= new - old;
            }
            fits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn every_size_fits_the_smallest_list_that_holds_it() {
        for size in 1..=LARGE {
            let list = list_of(layout(size)).unwrap();
            assert!(size_of_list(list) >= size, "{size}");
            assert!(list == 0 || size_of_list(list - 1) < size, "{size}");
            assert!(size_of_list(list).is_multiple_of(GRAIN) && list < LISTS);
        }
        assert_eq!(list_of(layout(LARGE + 1)), None);
        assert_eq!(list_of(layout(LARGE)), Some(LISTS - 1));
    }

    #[test]
    fn blocks_keep_what_is_in_them_and_do_not_overlap() {
        let pool = Pool::new();
        let mut random = 1u64;
        let mut live: Vec<(*mut u8, usize, u8)> = Vec::new();
        for round in 0..20_000u32 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (dice, size) =
                ((random >> 33) as usize, 1 + (random >> 40) as usize % (if round % 50 == 0 { 100_000 } else { 700 }));
            let fill = round as u8;
            // SAFETY: each block is used with the layout that it has, and freed once.
            unsafe {
                match dice % 4 {
                    0 | 1 => live.push((pool.alloc(layout(size)), size, fill)),
                    2 if !live.is_empty() => {
                        let (block, old, was) = live.swap_remove(dice / 4 % live.len());
                        let moved = pool.realloc(block, layout(old), size);
                        for i in 0..old.min(size) {
                            assert_eq!(*moved.add(i), was);
                        }
                        live.push((moved, size, fill));
                    }
                    3 if !live.is_empty() => {
                        let (block, old, was) = live.swap_remove(dice / 4 % live.len());
                        for i in 0..old {
                            assert_eq!(*block.add(i), was);
                        }
                        pool.dealloc(block, layout(old));
                        continue;
                    }
                    _ => continue,
                }
                let (block, size, fill) = *live.last().unwrap();
                assert!(!block.is_null() && block.addr().is_multiple_of(GRAIN));
                block.write_bytes(fill, size);
            }
        }
        for (block, size, fill) in live {
            // SAFETY: as above.
            unsafe {
                assert!((0..size).all(|i| *block.add(i) == fill));
                pool.dealloc(block, layout(size));
            }
        }
    }

    #[test]
    fn large_alignment_is_a_mapping_or_nothing() {
        let pool = Pool::new();
        for (align, there) in [(64, true), (4096, true), (8192, false)] {
            let layout = Layout::from_size_align(100, align).unwrap();
            // SAFETY: freed as it was made.
            unsafe {
                let block = pool.alloc(layout);
                assert_eq!(!block.is_null(), there);
                if there {
                    assert!(block.addr().is_multiple_of(align));
                    pool.dealloc(block, layout);
                }
            }
        }
    }
}
