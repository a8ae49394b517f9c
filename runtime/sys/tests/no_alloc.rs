//! Between clone and execve the child of the runtime allocates nothing: this program makes a container like Docker's as a
//! library user does, under an allocator that counts, in memory that all processes share, what is done by any process but
//! the first. It has no harness, because clone3 wants a process of one thread. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(clippy::print_stderr, reason = "how much was counted is the result")]

#[path = "../../tests/bundle/mod.rs"]
mod bundle;

use bundle::{Bundle, ID, private_mounts};
use orlop::ops::{self, CreateOptions, Global, RunOptions};
use orlop_sys::process;
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering::SeqCst};

struct Counting;

/// The pid of the first process; 0 until the counting begins.
static FIRST: AtomicI32 = AtomicI32::new(0);
/// The shared number.
static COUNT: AtomicPtr<AtomicUsize> = AtomicPtr::new(std::ptr::null_mut());

impl Counting {
    fn note() {
        let first = FIRST.load(SeqCst);
        // SAFETY: getpid takes nothing. In a new pid namespace it is 1, so it differs there too.
        if first != 0 && unsafe { libc::getpid() } != first {
            count().fetch_add(1, SeqCst);
        }
    }
}

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        Self::note();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::note();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() -> &'static AtomicUsize {
    // SAFETY: main has stored a page that is never unmapped and starts as zeroes, before FIRST is set.
    unsafe { &*COUNT.load(SeqCst) }
}

fn begin() {
    let (read_write, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping that nobody else knows.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, read_write, shared, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    COUNT.store(page.cast(), SeqCst);
    FIRST.store(std::process::id() as i32, SeqCst);
}

/// How much was allocated, freed or moved by other processes since the last look.
fn counted() -> usize {
    count().swap(0, SeqCst)
}

fn wait(child: &process::Child) {
    use std::os::fd::AsFd;
    process::wait(child.pidfd.as_fd(), true).unwrap();
}

fn main() -> ExitCode {
    private_mounts();
    begin();

    // That it can count at all, and in a new pid namespace too.
    for (flags, allocations) in [(0, 3), (process::CLONE_NEWPID as u64, 5), (0, 0)] {
        let child = process::clone3(flags, None, || {
            (0..allocations).for_each(|n| std::mem::forget(black_box(Box::new(n))));
            0
        });
        wait(&child.unwrap());
        assert_eq!(counted(), allocations);
    }

    let b = Bundle::new();
    // What the bundle was made with ran in no other process of ours.
    assert_eq!(counted(), 0);
    let global =
        Global { root: b.root(), cgroups: orlop::cgroup::Driver::Cgroupfs, rootless: Some(false), debug: false };
    let options = CreateOptions {
        id: ID.to_string(),
        bundle: b.path(""),
        config: None,
        console_socket: None,
        pidfd_socket: None,
        pid_file: None,
        no_pivot: false,
        no_new_keyring: false,
        preserve_fds: 0,
    };
    // The program is executed behind the gate: `create` and `start`, then `run`.
    ops::create::create(&global, &options).unwrap();
    ops::start::start(&global, ID).unwrap();
    let created = counted();
    ops::delete::delete(&global, ID, true).unwrap();
    let run = RunOptions { create: options, detach: true, keep: false, no_subreaper: true };
    assert_eq!(ops::run::run(&global, &run).unwrap(), 0);
    let ran = counted();
    ops::delete::delete(&global, ID, true).unwrap();

    eprintln!("allocations of the children: {created} by create and start, {ran} by run");
    let good = created == 0 && ran == 0;
    let (word, passed) = if good { ("ok", 1) } else { ("FAILED", 0) };
    eprintln!(
        "test the_child_allocates_nothing ... {word}\ntest result: {word}. {passed} passed; {} failed",
        1 - passed
    );
    ExitCode::from(u8::from(!good))
}
