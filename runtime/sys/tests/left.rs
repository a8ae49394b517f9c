//! `fds::Left`, alone in its process: fds are the whole process's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use orlop_sys::fds::Left;
use orlop_sys::{fds, file};
use std::os::fd::{AsFd, AsRawFd};

fn number_of_dropped() -> i32 {
    let fd = Left::from(file::open(c"/", file::O_PATH, 0).unwrap());
    fd.as_fd().as_raw_fd()
}

fn is_open(fd: i32) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|target| target == std::path::Path::new("/"))
}

#[test]
fn what_is_left_open_is_closed_together() {
    assert!(!is_open(number_of_dropped()), "nobody has asked for it");
    // Not where there is room for few.
    fds::leave_open(64);
    assert!(!is_open(number_of_dropped()) && !fds::leaves_open());
    fds::leave_open(1024);
    let first: Vec<i32> = (0..3).map(|_| number_of_dropped()).collect();
    let held = file::open(c"/", file::O_PATH, 0).unwrap();
    let all: Vec<i32> = (0..100).map(|_| number_of_dropped()).collect();
    assert!(first.iter().chain(&all).filter(|fd| **fd < 60).all(|fd| is_open(*fd)));
    assert!(all.iter().filter(|fd| **fd >= 60).all(|fd| !is_open(*fd)), "{all:?}");
    fds::close_left();
    assert!(first.iter().chain(&all).all(|fd| !is_open(*fd)) && is_open(held.as_raw_fd()));
    // What is closed is forgotten: the numbers are others' now.
    let again = file::open(c"/", file::O_PATH, 0).unwrap();
    fds::close_left();
    assert!(is_open(again.as_raw_fd()) && first.contains(&again.as_raw_fd()));
}
