//! The protocol between the parent and the init: one SEQPACKET pair, one frame, strict alternation.
//!
//! | init sends | the parent | and answers |
//! |---|---|---|
//! | `Child` + pidfd | learns who the container is, when one more process made it (a joined user namespace) | `Go` |
//! | `Maps` | writes uid_map and gid_map, sets limits that the child no longer can | `Go` |
//! | `Idmap` + tree | shows the ids of a source inside the rootfs as the plan has it, for which the init has no rights | `Go` |
//! | `Devices` + rtnetlink socket | moves network devices to the namespace that the socket speaks of | `Go` |
//! | `Hooks`, if there is such work | runs prestart and createRuntime hooks | `Go` |
//! | `Console` + pty master | keeps it, or sends it to --console-socket | `Go` |
//! | `Notify` + listener | sends it to the seccomp agent | `Go` |
//! | `Ready` | commits the state, writes the pid file | create, exec -d: nothing more. run, exec: `Go` |
//! | `Failed` | prints field, call, object, errno and hint of the step | |
//! | end of file | after `Ready`: the program was executed. Before it: set-up was killed | |
//!
//! After `create` has gone nobody listens: a failure behind the gate is written in the same frame to the fifo that is the gate, where
//! `start` finds it.

use orlop_sys::{Errno, Result, socket};
use std::os::fd::{BorrowedFd, OwnedFd};

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// See the table.
    Child = 1,
    /// See the table.
    Maps,
    /// See the table.
    Idmap,
    /// See the table.
    Devices,
    /// See the table.
    Hooks,
    /// See the table.
    Console,
    /// See the table.
    Notify,
    /// See the table.
    Ready,
    /// See the table.
    Failed,
    /// The parent's only answer.
    Go,
}

const TAGS: [Tag; 10] = [
    Tag::Child,
    Tag::Maps,
    Tag::Idmap,
    Tag::Devices,
    Tag::Hooks,
    Tag::Console,
    Tag::Notify,
    Tag::Ready,
    Tag::Failed,
    Tag::Go,
];

/// Which part of a step failed; the step itself names its main call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// The main call.
    Step = 0,
    /// Finding or making the place that it works on.
    Place,
    /// Opening the source of a bind mount.
    Source,
    /// Attributes of a mount.
    Attributes,
    /// Propagation of a mount.
    Propagation,
    /// Attaching a mount to its place.
    Attach,
    /// Copying up what a tmpfs covers.
    CopyUp,
    /// The place is on procfs, where nothing may be mounted.
    OnProc,
    /// What the source is mounted with may not be taken away.
    Locked,
    /// Something else than the wanted device is there already.
    Mismatch,
    /// The working directory is outside the root.
    Outside,
    /// A hook: its exit status is the number.
    HookStatus,
    /// A hook: the signal is the number.
    HookSignal,
    /// A hook: it took too long.
    HookTimeout,
    /// The process has no such program anywhere in $PATH.
    NotInPath,
    /// A message did not come or was not the right one.
    Protocol,
    /// setgroups(2).
    Groups,
}

/// Every part, each at the place of its number.
pub const PARTS: [Part; 17] = [
    Part::Step,
    Part::Place,
    Part::Source,
    Part::Attributes,
    Part::Propagation,
    Part::Attach,
    Part::CopyUp,
    Part::OnProc,
    Part::Locked,
    Part::Mismatch,
    Part::Outside,
    Part::HookStatus,
    Part::HookSignal,
    Part::HookTimeout,
    Part::NotInPath,
    Part::Protocol,
    Part::Groups,
];

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it says.
    pub tag: Tag,
    /// Of `Failed`: which part.
    pub part: Part,
    /// Of `Failed` and `Idmap`: the index into [`crate::plan::Plan::steps`].
    pub step: u16,
    /// Of `Failed`: the errno, or what the part says. Of `Child`: the pid.
    pub number: i32,
}

/// The length of a frame: bytes.
pub const SIZE: usize = 8;

impl Frame {
    /// A frame that is only a tag.
    pub fn of(tag: Tag) -> Frame {
        Frame { tag, part: Part::Step, step: 0, number: 0 }
    }

    /// Its bytes, in the machine's own order: both sides are one binary.
    pub fn bytes(&self) -> [u8; SIZE] {
        let (s, n) = (self.step.to_ne_bytes(), self.number.to_ne_bytes());
        [self.tag as u8, self.part as u8, s[0], s[1], n[0], n[1], n[2], n[3]]
    }

    /// The frame of these bytes, or `None` when they are none.
    pub fn parse(bytes: &[u8]) -> Option<Frame> {
        let &[tag, part, s0, s1, n0, n1, n2, n3] = bytes else { return None };
        Some(Frame {
            tag: *TAGS.get(usize::from(tag).checked_sub(1)?)?,
            part: *PARTS.get(usize::from(part))?,
            step: u16::from_ne_bytes([s0, s1]),
            number: i32::from_ne_bytes([n0, n1, n2, n3]),
        })
    }
}

/// Sends a frame.
pub fn send(socket: BorrowedFd, frame: &Frame, fd: Option<BorrowedFd>) -> Result<()> {
    socket::send(socket, &frame.bytes(), fd)
}

/// The next frame and the fd that came with it; `None` when the other side is gone.
pub fn receive(socket: BorrowedFd) -> Result<Option<(Frame, Option<OwnedFd>)>> {
    let mut buf = [0u8; SIZE + 1];
    let (n, fd) = socket::recv(socket, &mut buf)?;
    if n == 0 {
        return Ok(None);
    }
    let frame = Frame::parse(buf.get(..n).unwrap_or_default()).ok_or(Errno::EPROTO)?;
    Ok(Some((frame, fd)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        for tag in TAGS {
            for part in PARTS {
                let frame = Frame { tag, part, step: 0x1234, number: -5 };
                assert_eq!(Frame::parse(&frame.bytes()), Some(frame));
            }
        }
    }

    #[test]
    fn anything_else_is_no_frame() {
        assert_eq!(Frame::parse(&[]), None);
        assert_eq!(Frame::parse(&[0; 8]), None);
        assert_eq!(Frame::parse(&[TAGS.len() as u8 + 1, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Frame::parse(&[1, PARTS.len() as u8, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Frame::parse(&[1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
