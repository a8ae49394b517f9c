//! Values in GVariant's text format (docs.gtk.org, "GVariant Text Format"), as the annotations `org.systemd.property.*` have
//! them: `true`, `uint64 5`, `'text'`, `['a', 'b']`, `[byte 0x1, 0x2]`, `@as []`, `(1, 'x')`, `<5>`.
//! Dictionaries are left out: no property of a unit is one.

use crate::cgroup::dbus::{Value, complete};

/// How deep values may be nested.
const DEPTH: u32 = 16;

/// The value of a text, or what is wrong with it.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value("", 0)?;
    parser.space();
    match parser.rest() {
        "" => Ok(value),
        rest => Err(format!("{rest:?} follows the value")),
    }
}

/// The types that have a name, and numbers' codes.
const NAMES: &[(&str, &str)] = &[
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip(&mut self, c: char) -> bool {
        self.space();
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn expect(&mut self, c: char) -> Result<(), String> {
        if self.skip(c) { Ok(()) } else { Err(format!("{c:?} is missing before {:?}", self.rest())) }
    }

    /// A run of characters that a word or a number can have.
    fn word(&mut self) -> &'a str {
        let end = self.rest().find(|c: char| !c.is_ascii_alphanumeric() && !"+-._".contains(c));
        let word = self.rest().get(..end.unwrap_or(self.rest().len())).unwrap_or_default();
        self.at += word.len();
        word
    }

    /// A value of the type `want`, or of the one that its form tells if that is empty.
    fn value(&mut self, want: &str, depth: u32) -> Result<Value, String> {
        if depth > DEPTH {
            return Err("nested too deep".to_string());
        }
        self.space();
        match self.peek() {
            None => Err("a value is missing".to_string()),
            Some('@') => self.annotated(depth),
            Some('[') => self.array(want, depth),
            Some('(') => self.tuple(want, depth),
            Some('<') => {
                self.expect('<')?;
                let value = self.value("", depth + 1)?;
                self.expect('>')?;
                fitting(Value::variant(value), want)
            }
            Some(quote @ ('\'' | '"')) => {
                let text = self.quoted(quote)?;
                match want {
                    "o" => Ok(Value::Path(text)),
                    "g" => Ok(Value::Signature(text)),
                    _ => fitting(Value::Text(text), want),
                }
            }
            Some('b') if matches!(self.rest().as_bytes().get(1), Some(b'\'' | b'"')) => {
                self.at += 1;
                let quote = self.peek().unwrap_or('"');
                // A byte string ends with a NUL.
                let text = self.quoted(quote)?;
                fitting(Value::bytes(text.into_bytes().into_iter().chain([0])), want)
            }
            Some(_) => self.simple(want, depth),
        }
    }

    fn annotated(&mut self, depth: u32) -> Result<Value, String> {
        self.expect('@')?;
        let rest = self.rest();
        let length = complete(rest.as_bytes(), 0).map_err(|_| format!("{rest:?} does not begin with a type"))?;
        let signature = rest.get(..length).unwrap_or_default();
        self.at += length;
        self.value(signature, depth + 1)
    }

    fn array(&mut self, want: &str, depth: u32) -> Result<Value, String> {
        let mut element = match want.split_at_checked(1) {
            Some(("a", element)) => element.to_string(),
            None => String::new(),
            Some(_) => return Err(format!("an array where the type is {want:?}")),
        };
        self.expect('[')?;
        let mut elements = Vec::new();
        while !self.skip(']') {
            if !elements.is_empty() {
                self.expect(',')?;
            }
            let value = self.value(&element, depth + 1)?;
            if element.is_empty() {
                element = value.signature();
            }
            elements.push(value);
        }
        if element.is_empty() {
            return Err("an empty array needs its type, as in \"@as []\"".to_string());
        }
        Ok(Value::Array(element, elements))
    }

    fn tuple(&mut self, want: &str, depth: u32) -> Result<Value, String> {
        let mut wanted = match want {
            "" => None,
            _ => Some(
                want.strip_prefix('(')
                    .and_then(|w| w.strip_suffix(')'))
                    .ok_or(format!("a tuple where the type is {want:?}"))?,
            ),
        };
        self.expect('(')?;
        let mut fields = Vec::new();
        while !self.skip(')') {
            if !fields.is_empty() {
                self.expect(',')?;
                if self.skip(')') {
                    break;
                }
            }
            let of = match wanted {
                None => "",
                Some(left) => {
                    let length = complete(left.as_bytes(), 0).map_err(|_| format!("more fields than {want:?} has"))?;
                    wanted = left.get(length..);
                    left.get(..length).unwrap_or_default()
                }
            };
            fields.push(self.value(of, depth + 1)?);
        }
        match wanted {
            Some(left) if !left.is_empty() => Err(format!("fewer fields than {want:?} has")),
            _ if fields.is_empty() => Err("an empty tuple".to_string()),
            _ => Ok(Value::Struct(fields)),
        }
    }

    /// A boolean, a number, or the name of a type and its value.
    fn simple(&mut self, want: &str, depth: u32) -> Result<Value, String> {
        let word = self.word();
        if let Some((_, code)) = NAMES.iter().find(|(name, _)| *name == word) {
            let value = self.value(code, depth + 1)?;
            return fitting(value, want);
        }
        match word {
            "" => Err(format!("{:?} is not a value", self.rest())),
            "true" => fitting(Value::Bool(true), want),
            "false" => fitting(Value::Bool(false), want),
            number => numeric(number, want),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        self.expect(quote)?;
        let mut text = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.at += at + c.len_utf8();
                    return Ok(text);
                }
                '\\' => text.push(match chars.next().map(|(_, c)| c) {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some(c @ ('u' | 'U' | '0'..='9')) => return Err(format!("the escape \\{c} is not supported")),
                    Some(c) => c,
                    None => break,
                }),
                c => text.push(c),
            }
        }
        Err("the closing quote is missing".to_string())
    }
}

fn fitting(value: Value, want: &str) -> Result<Value, String> {
    let is = value.signature();
    if want.is_empty() || is == want {
        Ok(value)
    } else {
        Err(format!("a value of type {is:?} where {want:?} is wanted"))
    }
}

/// A number: an int32 unless its type is named, or a double if it looks like one.
fn numeric(text: &str, want: &str) -> Result<Value, String> {
    let bad = || {
        format!("{text:?} is not a value{}", if want.is_empty() { String::new() } else { format!(" of type {want:?}") })
    };
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let number = match (hex, digits.strip_prefix('0').filter(|rest| !rest.is_empty())) {
        (Some(hex), _) => i128::from_str_radix(hex, 16).ok(),
        (None, Some(octal)) => i128::from_str_radix(octal, 8).ok(),
        (None, None) => digits.parse::<i128>().ok(),
    };
    let number = number.map(|n| if text.starts_with('-') { -n } else { n }).filter(|_| !digits.starts_with(['-', '+']));
    let double = || text.parse::<f64>().map(Value::Double).map_err(|_| bad());
    let Some(n) = number else { return if matches!(want, "" | "d") { double() } else { Err(bad()) } };
    let value = match want {
        "y" => n.try_into().map(Value::Byte),
        "n" => n.try_into().map(Value::I16),
        "q" => n.try_into().map(Value::U16),
        "" | "i" => n.try_into().map(Value::I32),
        "u" => n.try_into().map(Value::U32),
        "x" => n.try_into().map(Value::I64),
        "t" => n.try_into().map(Value::U64),
        "d" => return double(),
        _ => return Err(bad()),
    };
    value.map_err(|_| format!("{text} is out of the range of its type"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_values() {
        let text = |s: &str| Value::text(s);
        for (from, to) in [
            ("true", Value::Bool(true)),
            ("5", Value::I32(5)),
            (" -0x10 ", Value::I32(-16)),
            ("010", Value::I32(8)),
            ("0", Value::I32(0)),
            ("1.5", Value::Double(1.5)),
            ("uint64 123456789", Value::U64(123_456_789)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("@t 5", Value::U64(5)),
            ("int64 -1", Value::I64(-1)),
            ("byte 0xff", Value::Byte(255)),
            ("double 2", Value::Double(2.0)),
            ("'inactive-or-failed'", text("inactive-or-failed")),
            (r#""it's \"so\"\\""#, text(r#"it's "so"\"#)),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("['a', 'b']", Value::Array("s".into(), vec![text("a"), text("b")])),
            ("@as []", Value::Array("s".into(), vec![])),
            ("[uint32 1, 2]", Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)])),
            ("@at [1, 2]", Value::Array("t".into(), vec![Value::U64(1), Value::U64(2)])),
            ("[('a', 'rw')]", Value::Array("(ss)".into(), vec![Value::Struct(vec![text("a"), text("rw")])])),
            ("@a(st) [('a', 2)]", Value::Array("(st)".into(), vec![Value::Struct(vec![text("a"), Value::U64(2)])])),
            ("(1, 'x',)", Value::Struct(vec![Value::I32(1), text("x")])),
            ("<5>", Value::variant(Value::I32(5))),
            ("b'ab'", Value::bytes([97, 98, 0])),
        ] {
            assert_eq!(parse(from).unwrap(), to, "{from}");
        }
    }

    #[test]
    fn what_is_no_value_is_told() {
        for (text, why) in [
            ("", "a value is missing"),
            ("inactive", "\"inactive\" is not a value"),
            ("[]", "an empty array needs its type, as in \"@as []\""),
            ("[1, 'a']", "a value of type \"s\" where \"i\" is wanted"),
            ("'a", "the closing quote is missing"),
            ("5 6", "\"6\" follows the value"),
            ("byte 256", "256 is out of the range of its type"),
            ("uint32 -1", "-1 is out of the range of its type"),
            ("5000000000", "5000000000 is out of the range of its type"),
            ("uint64 'x'", "a value of type \"s\" where \"t\" is wanted"),
            ("@(s 5", "\"(s 5\" does not begin with a type"),
            ("@(ss) ('a')", "fewer fields than \"(ss)\" has"),
            ("@(s) ('a', 'b')", "more fields than \"(s)\" has"),
            ("[1", "',' is missing before \"\""),
            ("--5", "\"--5\" is not a value"),
            ("{'a': 1}", "\"{'a': 1}\" is not a value"),
        ] {
            assert_eq!(parse(text).unwrap_err(), why, "{text}");
        }
        assert_eq!(parse(&"[".repeat(99)).unwrap_err(), "nested too deep");
    }
}
