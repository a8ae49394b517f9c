//! Protocol buffers as far as CRIU's messages need them: numbers, texts and messages in messages (protobuf.dev,
//! "Encoding").

/// The wire type of numbers, in the low bits of a tag.
const VARINT: u64 = 0;
/// The wire type of whatever has a length: texts and messages.
const LENGTH: u64 = 2;
/// The wire types of fixed size, which CRIU does not use: skipped.
const FIXED: [(u64, usize); 2] = [(1, 8), (5, 4)];

/// A message that is being put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// One without fields.
    pub fn new() -> Message {
        Message::default()
    }

    /// Adds a number: an int32, uint32, bool or enum. A negative one is sign-extended to 64 bits, as the encoding has it.
    pub fn number(&mut self, field: u32, value: impl Into<i64>) -> &mut Message {
        self.varint(u64::from(field) << 3 | VARINT);
        self.varint(value.into() as u64);
        self
    }

    /// Adds a text, or bytes.
    pub fn text(&mut self, field: u32, text: impl AsRef<[u8]>) -> &mut Message {
        let text = text.as_ref();
        self.varint(u64::from(field) << 3 | LENGTH);
        self.varint(text.len() as u64);
        self.0.extend_from_slice(text);
        self
    }

    /// Adds a message.
    pub fn message(&mut self, field: u32, message: &Message) -> &mut Message {
        self.text(field, &message.0)
    }

    /// The encoded bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number.
    Number(u64),
    /// A text, or a message.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The number, or 0.
    pub fn number(self) -> i32 {
        match self {
            Value::Number(n) => n as i32,
            Value::Bytes(_) => 0,
        }
    }

    /// The bytes, or none.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Value::Number(_) => &[],
            Value::Bytes(bytes) => bytes,
        }
    }

    /// The text, with what is not UTF-8 replaced.
    pub fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// The fields of a message in their order; `None` when the bytes are no message.
pub fn parse(mut data: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
    let mut fields = Vec::new();
    while !data.is_empty() {
        let tag = varint(&mut data)?;
        let field = u32::try_from(tag >> 3).ok().filter(|field| *field != 0)?;
        match tag & 7 {
            VARINT => fields.push((field, Value::Number(varint(&mut data)?))),
            LENGTH => {
                let length = usize::try_from(varint(&mut data)?).ok()?;
                fields.push((field, Value::Bytes(take(&mut data, length)?)));
            }
            kind => {
                let (_, size) = FIXED.iter().find(|fixed| fixed.0 == kind)?;
                take(&mut data, *size)?;
            }
        }
    }
    Some(fields)
}

fn take<'a>(data: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = data.split_at_checked(length)?;
    *data = rest;
    Some(taken)
}

fn varint(data: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(data, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_specification() {
        // protobuf.dev, "Encoding": "A Simple Message", "Length-Delimited Records", "Submessages", "Signed Integers".
        assert_eq!(Message::new().number(1, 150).bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::new().text(2, "testing").bytes(), b"\x12\x07testing");
        let inner = Message::new().number(1, 150).clone();
        assert_eq!(Message::new().message(3, &inner).bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let minus_two = [0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Message::new().number(1, -2).bytes(), minus_two);
        assert_eq!(Message::new().number(16, true).bytes(), [0x80, 0x01, 0x01]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut message = Message::new();
        message
            .number(1, -1)
            .text(68, "/images")
            .number(2, i64::from(u32::MAX))
            .message(5, Message::new().text(1, "x"));
        let fields = parse(message.bytes()).unwrap();
        assert_eq!(fields.iter().map(|f| f.0).collect::<Vec<_>>(), [1, 68, 2, 5]);
        assert_eq!((fields[0].1.number(), fields[1].1.text()), (-1, "/images".to_string()));
        assert_eq!(fields[2].1, Value::Number(u64::from(u32::MAX)));
        assert_eq!(parse(fields[3].1.bytes()).unwrap(), [(1, Value::Bytes(b"x"))]);
    }

    #[test]
    fn unknown_fields_of_fixed_size_are_skipped() {
        assert_eq!(parse(b"\x09abcdefgh\x15abcd\x18\x07").unwrap(), [(3, Value::Number(7))]);
    }

    #[test]
    fn what_is_cut_or_no_message_is_refused() {
        for bad in [&b"\x08"[..], b"\x08\x96", b"\x12\x07test", b"\x00\x01", b"\x0b", b"\x09abc", &[0xff; 11]] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
