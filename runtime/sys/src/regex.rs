//! regcomp(3): POSIX extended regular expressions, as grep -E and crun have them.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr;

/// A compiled expression.
pub struct Regex(libc::regex_t);

impl Regex {
    /// Compiles an expression; `None` if it is none. Allocates.
    pub fn new(pattern: &CStr) -> Option<Regex> {
        let mut regex = MaybeUninit::<libc::regex_t>::uninit();
        // SAFETY: regcomp reads the C string and fills `regex` when it returns 0.
        let failed =
            unsafe { libc::regcomp(regex.as_mut_ptr(), pattern.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB) };
        // SAFETY: it was filled.
        (failed == 0).then(|| Regex(unsafe { regex.assume_init() }))
    }

    /// Whether some part of `text` matches.
    pub fn matches(&self, text: &CStr) -> bool {
        // SAFETY: the expression is compiled, the text is a C string, and no place for submatches is asked for.
        unsafe { libc::regexec(&raw const self.0, text.as_ptr(), 0, ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: it was compiled, and is freed once.
        unsafe { libc::regfree(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_expressions() {
        let matches = |pattern: &CStr, text: &CStr| Regex::new(pattern).is_some_and(|regex| regex.matches(text));
        assert!(matches(c"^web-[0-9]+$", c"web-12"));
        assert!(matches(c"eb", c"web-12"));
        assert!(!matches(c"^web-[0-9]+$", c"web-"));
        assert!(Regex::new(c"a(b").is_none());
    }
}
