//! The few words of rtnetlink(7) that moving a network device takes: links by name, their addresses, changes of a link.
//!
//! A socket speaks of the network namespace that it was made in, whoever holds it, and keeps that namespace alive.

use orlop_sys::{Errno, Result, file, network};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

// linux/netlink.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RT_SCOPE_UNIVERSE: u8 = 0;
// linux/if_link.h, linux/if.h
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFF_UP: u32 = 1;
// linux/if_addr.h
const IFA_FLAGS: u16 = 8;
/// What makes up an address, with its lifetimes, metric and origin: the label has the device's name in it, and the rest is the kernel's.
const KEPT: &[u16] = &[1, 2, 4, IFA_CACHEINFO, 9, 11];
const IFA_CACHEINFO: u16 = 6;
const IFA_F_PERMANENT: u32 = 0x80;
/// NODAD, OPTIMISTIC, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN: the others say what the kernel has found out.
const GIVEN_FLAGS: u32 = 0x02 | 0x04 | 0x10 | 0x100 | 0x200 | 0x400;

/// The lengths of nlmsghdr, ifinfomsg, ifaddrmsg and of an attribute's head.
const HEADER: usize = 16;
const LINK: usize = 16;
const ADDRESS: usize = 8;
const ATTRIBUTE: usize = 4;
/// The kernel fills at most this much at a time: bytes.
const BUFFER: usize = 32 << 10;

/// A network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its network namespace.
    pub index: i32,
    /// It is up.
    pub up: bool,
}

/// An address that was given to a device, as the kernel takes it: family, length of the prefix, flags, attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// A conversation with the kernel about one network namespace.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// About our own network namespace.
    pub fn new() -> Result<Socket> {
        Ok(Socket::from(network::route_socket()?))
    }

    /// The device of this name; ENODEV: there is none.
    pub fn link(&mut self, name: &str) -> Result<Link> {
        let mut request = Request::new(RTM_GETLINK, NLM_F_REQUEST, &[0; LINK]);
        request.text(IFLA_IFNAME, name);
        let mut found = None;
        self.ask(request, |kind, body| {
            if kind == RTM_NEWLINK {
                found = link_of(body);
            }
            found.is_some()
        })?;
        found.ok_or(Errno::ENODEV)
    }

    /// The addresses of global scope that were given to the device to stay, in the order in which it has them.
    pub fn addresses(&mut self, index: i32) -> Result<Vec<Address>> {
        /// How often the list may change while it is read.
        const TRIES: usize = 8;
        for _ in 0..TRIES {
            let mut list = Vec::new();
            let request = Request::new(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, &[0; ADDRESS]);
            let whole = self.ask(request, |kind, body| {
                if kind == RTM_NEWADDR {
                    list.extend(address_of(body, index));
                }
                false
            })?;
            if whole {
                return Ok(list);
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Moves the device to a network namespace, and gives it this name there, at once; EEXIST: the name is taken.
    pub fn hand_over(&mut self, index: i32, name: &str, namespace: BorrowedFd) -> Result<()> {
        let mut request = change(index, 0);
        request.text(IFLA_IFNAME, name);
        request.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        self.act(request)
    }

    /// Gives the device another name; `%d` in it becomes the first number that is free.
    pub fn rename(&mut self, index: i32, name: &str) -> Result<()> {
        let mut request = change(index, 0);
        request.text(IFLA_IFNAME, name);
        self.act(request)
    }

    /// Sets the device up.
    pub fn set_up(&mut self, index: i32) -> Result<()> {
        self.act(change(index, IFF_UP))
    }

    /// Gives the device an address.
    pub fn add_address(&mut self, index: i32, address: &Address) -> Result<()> {
        let mut head = vec![address.family, address.prefix, address.flags as u8, RT_SCOPE_UNIVERSE];
        head.extend(index.to_ne_bytes());
        let mut request = Request::new(RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, &head);
        request.attribute(IFA_FLAGS, &address.flags.to_ne_bytes());
        for (kind, value) in &address.attributes {
            request.attribute(*kind, value);
        }
        self.act(request)
    }

    fn act(&mut self, request: Request) -> Result<()> {
        self.ask(request, |_, _| false).map(drop)
    }

    /// Sends a request and shows what is answered, until `enough` says so or the kernel does. False: the list changed while it was read.
    fn ask(&mut self, request: Request, mut enough: impl FnMut(u16, &[u8]) -> bool) -> Result<bool> {
        self.sequence += 1;
        file::write(self.fd.as_fd(), &request.bytes(self.sequence))?;
        let mut buf = vec![0; BUFFER];
        let mut whole = true;
        loop {
            let n = file::read(self.fd.as_fd(), &mut buf)?;
            let answer = buf.get(..n).unwrap_or_default();
            for message in messages(answer).filter(|m| m.sequence == self.sequence) {
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(whole),
                    NLMSG_ERROR => return outcome(message.body).map(|()| whole),
                    kind if enough(kind, message.body) => return Ok(whole),
                    _ => {}
                }
            }
        }
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Socket {
        Socket { fd, sequence: 0 }
    }
}

/// A change of a link: `flags` are set, all others stay.
fn change(index: i32, flags: u32) -> Request {
    let mut head = vec![0; 4];
    head.extend(index.to_ne_bytes());
    head.extend(flags.to_ne_bytes());
    head.extend(flags.to_ne_bytes());
    Request::new(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &head)
}

/// A message that is being put together.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16, head: &[u8]) -> Request {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(head);
        Request(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.0.extend(((ATTRIBUTE + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(aligned(self.0.len()), 0);
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn bytes(mut self, sequence: u32) -> Vec<u8> {
        let length = (self.0.len() as u32).to_ne_bytes();
        for (to, from) in self.0.iter_mut().zip(length) {
            *to = from;
        }
        for (to, from) in self.0.iter_mut().skip(8).zip(sequence.to_ne_bytes()) {
            *to = from;
        }
        self.0
    }
}

/// One message of an answer.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

fn aligned(length: usize) -> usize {
    length.div_ceil(4) * 4
}

/// The messages of what was read; what is shorter than it says ends the list.
fn messages(mut data: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(data, 0)? as usize;
        let body = data.get(HEADER..length)?;
        let message = Message { kind: u16_at(data, 4)?, flags: u16_at(data, 6)?, sequence: u32_at(data, 8)?, body };
        data = data.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

/// Types and values of the attributes behind a message's head.
fn attributes(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(data, 0)?);
        let found = (u16_at(data, 2)?, data.get(ATTRIBUTE..length)?);
        data = data.get(aligned(length)..).unwrap_or_default();
        Some(found)
    })
}

fn outcome(body: &[u8]) -> Result<()> {
    match u32_at(body, 0).map(|number| number as i32) {
        Some(0) => Ok(()),
        Some(number) => Err(Errno::from_raw(-number)),
        None => Err(Errno::EBADMSG),
    }
}

fn link_of(body: &[u8]) -> Option<Link> {
    Some(Link { index: u32_at(body, 4)? as i32, up: u32_at(body, 8)? & IFF_UP != 0 })
}

/// The address of an RTM_NEWADDR message, if it is one of this device that is to be kept (RFC 3549, section 2.3.3.2).
fn address_of(body: &[u8], index: i32) -> Option<Address> {
    let (&[family, prefix, short_flags, scope], rest) = body.split_first_chunk::<4>()?;
    let all = attributes(body.get(ADDRESS..)?);
    let (mut flags, mut kept) = (u32::from(short_flags), Vec::new());
    for (kind, value) in all {
        if kind == IFA_FLAGS {
            flags = u32_at(value, 0)?;
        } else if KEPT.contains(&kind) {
            kept.push((kind, value.to_vec()));
        }
    }
    let wanted = u32_at(rest, 0)? as i32 == index && scope == RT_SCOPE_UNIVERSE && flags & IFA_F_PERMANENT != 0;
    wanted.then_some(Address { family, prefix, flags: flags & GIVEN_FLAGS, attributes: kept })
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as the kernel would send it.
    fn message(kind: u16, head: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut request = Request::new(kind, 0, head);
        attributes.iter().for_each(|(kind, value)| request.attribute(*kind, value));
        request.bytes(7)
    }

    fn address(index: i32, short_flags: u8, scope: u8, attributes: &[(u16, &[u8])]) -> Option<Address> {
        let head = [&[2, 24, short_flags, scope], &index.to_ne_bytes()[..]].concat();
        let bytes = message(RTM_NEWADDR, &head, attributes);
        address_of(messages(&bytes).next().unwrap().body, 5)
    }

    #[test]
    fn a_request_is_an_answer_that_can_be_read() {
        let mut bytes = message(RTM_NEWLINK, &[0; LINK], &[(IFLA_IFNAME, b"eth0\0"), (99, &[])]);
        bytes.extend(message(NLMSG_DONE, &[0; 4], &[]));
        let all: Vec<Message> = messages(&bytes).collect();
        assert_eq!(all.iter().map(|m| (m.kind, m.sequence)).collect::<Vec<_>>(), [(RTM_NEWLINK, 7), (NLMSG_DONE, 7)]);
        let inside: Vec<_> = attributes(all[0].body.get(LINK..).unwrap()).collect();
        assert_eq!(inside, [(IFLA_IFNAME, &b"eth0\0"[..]), (99, &[])]);
    }

    #[test]
    fn what_is_cut_off_or_lies_about_its_length_ends_the_list() {
        let bytes = message(RTM_NEWLINK, &[0; LINK], &[(IFLA_IFNAME, b"eth0\0")]);
        for end in 0..bytes.len() {
            assert!(messages(&bytes[..end]).next().is_none(), "{end}");
        }
        for length in [0_u32, 1, 15, u32::MAX] {
            let mut lie = bytes.clone();
            lie[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(messages(&lie).next().is_none(), "{length}");
        }
        for length in [0_u8, 3, 200] {
            assert!(attributes(&[length, 0, 3, 0, 0, 0]).next().is_none(), "{length}");
        }
        assert!(address_of(&[2, 24], 5).is_none() && link_of(&[0; 8]).is_none() && outcome(&[1]).is_err());
    }

    #[test]
    fn only_lasting_addresses_of_global_scope_are_kept() {
        let flags = |flags: u32| flags.to_ne_bytes();
        let kept = address(5, 0, 0, &[(IFA_FLAGS, &flags(0x281)), (2, &[10, 0, 0, 1]), (3, b"eth0\0")]).unwrap();
        // A secondary address (0x01) becomes one again by itself; it had no route of its own (0x200).
        let expected = Address { family: 2, prefix: 24, flags: 0x200, attributes: vec![(2, vec![10, 0, 0, 1])] };
        assert_eq!(kept, expected);
        assert!(address(5, 0x80, 0, &[]).is_some(), "the short flags hold where there are no long ones");
        assert!(address(5, 0, 0, &[(IFA_FLAGS, &flags(0x200))]).is_none(), "not permanent");
        assert!(address(5, 0x80, 253, &[]).is_none(), "of the link");
        assert!(address(6, 0x80, 0, &[]).is_none(), "of another device");
    }

    #[test]
    fn the_kernel_knows_loopback() {
        let mut socket = Socket::new().unwrap();
        assert_eq!(socket.link("lo").unwrap().index, 1);
        assert_eq!(socket.link("no-such-device"), Err(Errno::ENODEV));
        assert!(socket.addresses(1).unwrap().is_empty(), "127.0.0.1 is of the host's scope");
    }
}
