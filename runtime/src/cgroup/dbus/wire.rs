//! D-Bus values and messages as bytes (D-Bus Specification, "Message Protocol"): what a client of systemd needs.
//!
//! Messages are read and written in little-endian order, which is that of every host this runs on, and peers on one host
//! use their own. One in the other order, and one of a type that the specification does not have yet, is passed over. Whatever is read is bounded: lengths by the message, nesting by [`DEPTH`].

use std::io;

/// How deep values may be nested (the specification allows 32 arrays and 32 structs).
const DEPTH: u32 = 64;
/// The longest message that is taken; the specification has 128 MiB, systemd's signals have kilobytes.
const LONGEST: usize = 16 << 20;

/// A value with its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Text(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `a`, with the signature of the elements
    Array(String, Vec<Value>),
    /// `(...)`; read also for the entries of dictionaries
    Struct(Vec<Value>),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    /// A value in a variant.
    pub fn variant(value: Value) -> Value {
        Value::Variant(Box::new(value))
    }

    /// An array of bytes.
    pub fn bytes(bytes: impl IntoIterator<Item = u8>) -> Value {
        Value::Array("y".into(), bytes.into_iter().map(Value::Byte).collect())
    }

    /// The text of a text, an object path or a signature, in a variant too.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) | Value::Path(text) | Value::Signature(text) => Some(text),
            Value::Variant(value) => value.as_text(),
            _ => None,
        }
    }

    /// The type as the specification writes it.
    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".into(),
            Value::Bool(_) => "b".into(),
            Value::I16(_) => "n".into(),
            Value::U16(_) => "q".into(),
            Value::I32(_) => "i".into(),
            Value::U32(_) => "u".into(),
            Value::I64(_) => "x".into(),
            Value::U64(_) => "t".into(),
            Value::Double(_) => "d".into(),
            Value::Text(_) => "s".into(),
            Value::Path(_) => "o".into(),
            Value::Signature(_) => "g".into(),
            Value::Variant(_) => "v".into(),
            Value::Array(of, _) => format!("a{of}"),
            Value::Struct(fields) => format!("({})", fields.iter().map(Value::signature).collect::<String>()),
        }
    }

    fn write(&self, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Value::Byte(n) => out.push(*n),
            Value::Bool(b) => put(out, &u32::from(*b).to_le_bytes()),
            Value::I16(n) => put(out, &n.to_le_bytes()),
            Value::U16(n) => put(out, &n.to_le_bytes()),
            Value::I32(n) => put(out, &n.to_le_bytes()),
            Value::U32(n) => put(out, &n.to_le_bytes()),
            Value::I64(n) => put(out, &n.to_le_bytes()),
            Value::U64(n) => put(out, &n.to_le_bytes()),
            Value::Double(n) => put(out, &n.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => {
                put(out, &(text.len() as u32).to_le_bytes());
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Value::Signature(text) => {
                out.push(u8::try_from(text.len()).map_err(|_| malformed("a signature of more than 255 bytes"))?);
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Value::Variant(value) => {
                Value::Signature(value.signature()).write(out)?;
                value.write(out)?;
            }
            Value::Struct(fields) => {
                align(out, 8);
                fields.iter().try_for_each(|field| field.write(out))?;
            }
            Value::Array(of, elements) => {
                put(out, &[0; 4]);
                let length = out.len() - 4;
                align(out, alignment(of.as_bytes().first().copied().unwrap_or_default()));
                let start = out.len();
                elements.iter().try_for_each(|element| element.write(out))?;
                let bytes = ((out.len() - start) as u32).to_le_bytes();
                out.iter_mut().skip(length).zip(bytes).for_each(|(place, byte)| *place = byte);
            }
        }
        Ok(())
    }
}

/// A number, aligned to its size.
fn put(out: &mut Vec<u8>, number: &[u8]) {
    align(out, number.len());
    out.extend_from_slice(number);
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn alignment(code: u8) -> usize {
    match code {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 4,
    }
}

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for something.
    Call,
    /// The answer.
    Reply,
    /// The refusal.
    Error,
    /// Tells of something.
    Signal,
    /// Nothing that is known here; of such a message only the length is read.
    Other,
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What it is for.
    pub kind: Kind,
    /// Its number at its sender.
    pub serial: u32,
    /// Whether the sender of a call wants an answer.
    pub answered: bool,
    /// The object (call, signal).
    pub path: String,
    /// The interface (call, signal).
    pub interface: String,
    /// The method or signal.
    pub member: String,
    /// The name of an error.
    pub error: String,
    /// The number of the call that this answers.
    pub reply_to: u32,
    /// Who gets it; empty without a bus in between.
    pub destination: String,
    /// Who sent it, by the bus.
    pub sender: String,
    /// The values.
    pub body: Vec<Value>,
}

const NO_REPLY_EXPECTED: u8 = 1;

impl Message {
    /// A call of a method.
    pub fn call(destination: &str, path: &str, interface: &str, member: &str, body: Vec<Value>) -> Message {
        Message {
            kind: Kind::Call,
            serial: 0,
            answered: true,
            path: path.into(),
            interface: interface.into(),
            member: member.into(),
            error: String::new(),
            reply_to: 0,
            destination: destination.into(),
            sender: String::new(),
            body,
        }
    }

    /// The message as bytes.
    ///
    /// # Errors
    /// A signature that is longer than one can be.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        self.body.iter().try_for_each(|value| value.write(&mut body))?;
        let signature: String = self.body.iter().map(Value::signature).collect();
        let field = |code, value: Value| Value::Struct(vec![Value::Byte(code), Value::variant(value)]);
        let mut fields = Vec::new();
        let path = (!self.path.is_empty()).then(|| Value::Path(self.path.clone()));
        let text = |text: &String| (!text.is_empty()).then(|| Value::text(text));
        for (code, value) in [
            (1, path),
            (2, text(&self.interface)),
            (3, text(&self.member)),
            (4, text(&self.error)),
            (5, (self.reply_to != 0).then_some(Value::U32(self.reply_to))),
            (6, text(&self.destination)),
            (7, text(&self.sender)),
            (8, (!signature.is_empty()).then_some(Value::Signature(signature))),
        ] {
            fields.extend(value.map(|value| field(code, value)));
        }
        let kind = match self.kind {
            Kind::Call => 1,
            Kind::Reply => 2,
            Kind::Error => 3,
            Kind::Signal => 4,
            Kind::Other => return Err(malformed("message type")),
        };
        let mut out = vec![b'l', kind, if self.answered { 0 } else { NO_REPLY_EXPECTED }, 1];
        Value::U32(body.len() as u32).write(&mut out)?;
        Value::U32(self.serial).write(&mut out)?;
        Value::Array("(yv)".into(), fields).write(&mut out)?;
        align(&mut out, 8);
        out.extend_from_slice(&body);
        Ok(out)
    }

    /// The first message in `bytes` and its length; `None`: more bytes are needed.
    ///
    /// # Errors
    /// Bytes that are no message. The body is read for the kinds and members of `wanted` alone: the signals of others may
    /// have types that nobody here knows.
    pub fn decode(bytes: &[u8], wanted: impl Fn(&Message) -> bool) -> io::Result<Option<(Message, usize)>> {
        let mut head = Reader { bytes, at: 0 };
        if bytes.len() < 16 {
            return Ok(None);
        }
        let (order, kind, flags, version) = (head.byte()?, head.byte()?, head.byte()?, head.byte()?);
        let known = order == b'l';
        if !known && order != b'B' || version != 1 {
            return Err(malformed("byte order or version"));
        }
        let mut number = || head.u32().map(|n| if known { n } else { n.swap_bytes() });
        let (length, serial, fields) = (number()? as usize, number()?, number()? as usize);
        if length > LONGEST || fields > LONGEST {
            return Err(malformed("length"));
        }
        let start = (16 + fields).next_multiple_of(8);
        let Some(whole) = bytes.get(..start + length) else { return Ok(None) };
        let kind = match kind {
            1 => Kind::Call,
            2 => Kind::Reply,
            3 => Kind::Error,
            4 => Kind::Signal,
            // The one that is invalid, not only unknown.
            0 => return Err(malformed("message type")),
            _ => Kind::Other,
        };
        let kind = if known { kind } else { Kind::Other };
        let mut message = Message {
            kind,
            serial,
            answered: flags & NO_REPLY_EXPECTED == 0,
            ..Message::call("", "", "", "", Vec::new())
        };
        if kind == Kind::Other {
            return Ok(Some((message, start + length)));
        }
        let mut signature = String::new();
        // Read anew from its length on, as an array.
        let mut reader = Reader { bytes: whole.get(..start).unwrap_or_default(), at: 12 };
        let Value::Array(_, fields) = reader.value(&mut &b"a(yv)"[..], 0)? else { return Err(malformed("header")) };
        for field in fields {
            let Value::Struct(pair) = field else { continue };
            let [Value::Byte(code), Value::Variant(value)] = pair.as_slice() else { continue };
            let text = || value.as_text().map(str::to_string).ok_or_else(|| malformed("header field"));
            match code {
                1 => message.path = text()?,
                2 => message.interface = text()?,
                3 => message.member = text()?,
                4 => message.error = text()?,
                5 => {
                    message.reply_to =
                        if let Value::U32(n) = **value { n } else { return Err(malformed("reply serial")) }
                }
                6 => message.destination = text()?,
                7 => message.sender = text()?,
                8 => signature = text()?,
                _ => {}
            }
        }
        if wanted(&message) {
            let mut reader = Reader { bytes: whole.get(start..).unwrap_or_default(), at: 0 };
            let mut left = signature.as_bytes();
            while !left.is_empty() {
                message.body.push(reader.value(&mut left, 0)?);
            }
        }
        Ok(Some((message, start + length)))
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed D-Bus message: {what}"))
}

/// Reads values; offsets count from the start of what it was given, which is aligned to 8.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, n: usize) -> io::Result<&[u8]> {
        let end = self.at.checked_add(n).ok_or_else(|| malformed("length"))?;
        let taken = self.bytes.get(self.at..end).ok_or_else(|| malformed("end"))?;
        self.at = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.at = self.at.next_multiple_of(N);
        self.take(N)?.try_into().map_err(|_| malformed("number"))
    }

    fn byte(&mut self) -> io::Result<u8> {
        Ok(u8::from_le_bytes(self.number()?))
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.number()?))
    }

    fn text(&mut self, length: usize) -> io::Result<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).map_err(|_| malformed("text"))?;
        if self.byte()? == 0 { Ok(text) } else { Err(malformed("text")) }
    }

    /// One value of the type with which `signature` begins; the type is taken off.
    fn value(&mut self, signature: &mut &[u8], depth: u32) -> io::Result<Value> {
        if depth > DEPTH {
            return Err(malformed("nesting"));
        }
        let (code, rest) = signature.split_first().ok_or_else(|| malformed("signature"))?;
        *signature = rest;
        Ok(match code {
            b'y' => Value::Byte(self.byte()?),
            b'b' => Value::Bool(match self.u32()? {
                0 => false,
                1 => true,
                _ => return Err(malformed("boolean")),
            }),
            b'n' => Value::I16(i16::from_le_bytes(self.number()?)),
            b'q' => Value::U16(u16::from_le_bytes(self.number()?)),
            b'i' => Value::I32(i32::from_le_bytes(self.number()?)),
            b'u' | b'h' => Value::U32(self.u32()?),
            b'x' => Value::I64(i64::from_le_bytes(self.number()?)),
            b't' => Value::U64(u64::from_le_bytes(self.number()?)),
            b'd' => Value::Double(f64::from_le_bytes(self.number()?)),
            b's' | b'o' => {
                let length = self.u32()? as usize;
                let text = self.text(length)?;
                if *code == b's' { Value::Text(text) } else { Value::Path(text) }
            }
            b'g' => {
                let length = usize::from(self.byte()?);
                Value::Signature(self.text(length)?)
            }
            b'v' => {
                let length = usize::from(self.byte()?);
                let inner = self.text(length)?;
                let mut inner = inner.as_bytes();
                let value = self.value(&mut inner, depth + 1)?;
                if !inner.is_empty() {
                    return Err(malformed("variant"));
                }
                Value::variant(value)
            }
            b'a' => self.array(signature, depth)?,
            b'(' | b'{' => {
                self.at = self.at.next_multiple_of(8);
                let mut fields = Vec::new();
                while !matches!(signature.first(), Some(b')' | b'}') | None) {
                    fields.push(self.value(signature, depth + 1)?);
                }
                *signature = signature.get(1..).ok_or_else(|| malformed("signature"))?;
                Value::Struct(fields)
            }
            _ => return Err(malformed("type")),
        })
    }

    fn array(&mut self, signature: &mut &[u8], depth: u32) -> io::Result<Value> {
        let length = self.u32()? as usize;
        let of = *signature;
        let element = complete(of, depth)?;
        self.at = self.at.next_multiple_of(alignment(of.first().copied().unwrap_or_default()));
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or_else(|| malformed("end"))?;
        let mut elements = Vec::new();
        while self.at < end {
            let before = self.at;
            elements.push(self.value(&mut &of[..], depth + 1)?);
            // An empty struct would go on for ever.
            if self.at == before {
                return Err(malformed("array"));
            }
        }
        if self.at != end {
            return Err(malformed("array"));
        }
        let (element, rest) = of.split_at(element);
        *signature = rest;
        Ok(Value::Array(String::from_utf8_lossy(element).into_owned(), elements))
    }
}

/// The length of the first complete type of a signature.
pub fn complete(signature: &[u8], depth: u32) -> io::Result<usize> {
    let bad = || malformed("signature");
    if depth > DEPTH {
        return Err(malformed("nesting"));
    }
    match signature.first().ok_or_else(bad)? {
        b'a' => Ok(1 + complete(signature.get(1..).unwrap_or_default(), depth + 1)?),
        open @ (b'(' | b'{') => {
            let close = if *open == b'(' { b')' } else { b'}' };
            let mut at = 1;
            loop {
                match signature.get(at).ok_or_else(bad)? {
                    end if *end == close && at > 1 => return Ok(at + 1),
                    _ => at += complete(signature.get(at..).unwrap_or_default(), depth + 1)?,
                }
            }
        }
        code if b"ybnqiuxtdsogvh".contains(code) => Ok(1),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Message {
        let property = |name: &str, value| Value::Struct(vec![Value::text(name), Value::variant(value)]);
        let properties = vec![
            property("Delegate", Value::Bool(true)),
            property("PIDs", Value::Array("u".into(), vec![Value::U32(7)])),
            property("AllowedCPUs", Value::bytes([1, 2, 3])),
            property("TasksMax", Value::U64(u64::MAX)),
            property(
                "DeviceAllow",
                Value::Array("(ss)".into(), vec![Value::Struct(vec![Value::text("/dev/null"), Value::text("rw")])]),
            ),
            property("Empty", Value::Array("(ss)".into(), Vec::new())),
            property("D", Value::Double(0.5)),
            property("N", Value::I16(-1)),
        ];
        let mut call = Message::call(
            "a.b",
            "/c/d",
            "e.f",
            "G",
            vec![Value::text("x.scope"), Value::Array("(sv)".into(), properties)],
        );
        call.serial = 9;
        call
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let bytes = sample().encode().unwrap();
        let (read, length) = Message::decode(&bytes, |_| true).unwrap().unwrap();
        assert_eq!((read, length), (sample(), bytes.len()));
        let unread = Message::decode(&bytes, |_| false).unwrap().unwrap().0;
        assert_eq!((unread.body.len(), unread.member.as_str()), (0, "G"));
    }

    /// By hand from the specification: a header of 16 bytes, its fields each from a multiple of 8 on, the body.
    #[test]
    fn a_call_in_bytes() {
        let mut ping = Message::call("", "/o", "", "Ping", vec![Value::U32(5)]);
        ping.serial = 1;
        let expected: &[u8] = b"l\x01\0\x01\x04\0\0\0\x01\0\0\0\x27\0\0\0\x01\x01o\0\x02\0\0\0/o\0\0\0\0\0\0\x03\x01s\0\x04\0\0\0Ping\0\0\0\0\x08\x01g\0\x01u\0\0\x05\0\0\0";
        assert_eq!(ping.encode().unwrap(), expected);
    }

    #[test]
    fn a_part_of_a_message_is_waited_for() {
        let bytes = sample().encode().unwrap();
        for n in 0..bytes.len() {
            assert_eq!(Message::decode(&bytes[..n], |_| true).unwrap(), None, "{n} bytes");
        }
    }

    #[test]
    fn what_is_no_message_is_an_error_and_nothing_worse() {
        let bytes = sample().encode().unwrap();
        // Every byte changed to every value: no panic, no endless loop; most are errors.
        let mut errors = 0;
        for at in 0..bytes.len() {
            for value in [0, 1, b'a', b'(', b'{', 0x7f, 0xff] {
                let mut bad = bytes.clone();
                bad[at] = value;
                errors += usize::from(Message::decode(&bad, |_| true).is_err());
            }
        }
        assert!(errors > 100, "{errors}");
        let nested = [b"a".repeat(200).as_slice(), b"y"].concat();
        assert!(complete(&nested, 0).is_err());
        assert!(complete(b"()", 0).is_err() && complete(b"(s", 0).is_err() && complete(b"", 0).is_err());
        assert_eq!(complete(b"a(ss)u", 0).unwrap(), 5);
    }

    #[test]
    fn a_signature_that_is_too_long_is_refused() {
        let of = |n| Message::call("", "/o", "", "Ping", vec![Value::U32(5); n]);
        assert!(of(255).encode().is_ok());
        let why = of(256).encode().unwrap_err().to_string();
        assert!(why.contains("a signature of more than 255 bytes"), "{why}");
        let nested = Value::variant(Value::Struct(vec![Value::Byte(1); 254]));
        assert!(Message::call("", "/o", "", "Ping", vec![nested]).encode().is_err());
    }
}
