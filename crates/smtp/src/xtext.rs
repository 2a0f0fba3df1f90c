//! xtext: how ENVID and ORCPT carry any printable text in a parameter (RFC 3461 §4).

use std::fmt::Write as _;

/// The text behind an xtext; `None` when it is none, or stands for something that is not UTF-8.
///
/// ```
/// assert_eq!(posthorn_smtp::xtext::decode("rfc822;a+2Bb@example.net").as_deref(), Some("rfc822;a+b@example.net"));
/// assert_eq!(posthorn_smtp::xtext::decode("a+b"), None);
/// ```
pub fn decode(xtext: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(xtext.len());
    let mut rest = xtext.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => {
                let (hex, after) = rest.split_at_checked(2)?;
                bytes.push(hex_digit(hex[0])? << 4 | hex_digit(hex[1])?);
                rest = after;
            }
            b'=' => return None,
            // RFC 6531 §3.5 and RFC 6533: UTF-8 may stand for itself where SMTPUTF8 was given.
            b'!'..=b'~' | 0x80.. => bytes.push(byte),
            _ => return None,
        }
    }
    String::from_utf8(bytes).ok()
}

/// The value of a hexadecimal digit. xtext has them in upper case; some clients write lower case, and other servers
/// take it.
fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// The xtext of a text: what is not printable ASCII, and `+` and `=`, in hexadecimal.
pub fn encode(text: &str) -> String {
    let mut xtext = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b'!'..=b'~') && byte != b'+' && byte != b'=' {
            xtext.push(byte.into());
        } else {
            write!(xtext, "+{byte:02X}").expect("a String takes all that is written to it");
        }
    }
    xtext
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_xtext_is_refused() {
        for text in ["a b", "a=b", "+", "+4", "+4g", "+ZZ", "a\r", "+FF"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }

    #[test]
    fn lower_case_is_taken() {
        assert_eq!(decode("a+2bb+3Dc").as_deref(), Some("a+b=c"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_goes_there_and_back(text in ".{0,40}") {
            let xtext = encode(&text);
            proptest::prop_assert!(xtext.bytes().all(|b| b.is_ascii_graphic()));
            proptest::prop_assert_eq!(decode(&xtext), Some(text));
        }
    }
}
