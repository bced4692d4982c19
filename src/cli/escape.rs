//! Keeps control characters of untrusted names and output from the terminal.

/// Whether a character acts on a terminal, or hides or reorders the text around it.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Escapes all control characters but line ends and tabs, and characters that hide or reorder text.
pub(super) fn escape_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) && c != '\n' && c != '\t' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Returns `text` on one line, with control characters replaced.
pub(super) fn single_line(text: &str) -> String {
    let shown = |c: char| if is_hidden(c) { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// Escapes the control characters that JSON allows in strings: DEL, and those of 8-bit terminals.
pub(super) fn escape_json(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for c in document.chars() {
        if c.is_control() {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// The longest colour sequence that a terminal may get, in bytes.
const MAX_COLOUR: usize = 40;

/// Returns a service's output as a terminal may get it: control characters are escaped, except line ends and tabs, and
/// bytes that are no UTF-8, which may be control characters of an 8-bit terminal. Colours stay (`ESC [ … m`, which
/// changes the look of text and nothing else), up to the end of the output.
pub(super) fn for_terminal(output: &[u8]) -> Vec<u8> {
    let mut out = String::with_capacity(output.len() + 16);
    let mut coloured = false;
    for chunk in output.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(c) = rest.chars().next() {
            let colour = colour(rest);
            if !colour.is_empty() {
                coloured = true;
                out.push_str(colour);
                rest = &rest[colour.len()..];
                continue;
            }
            // A line may end as in DOS.
            if !is_hidden(c) || c == '\n' || c == '\t' || rest.starts_with("\r\n") {
                out.push(c);
            } else {
                out.extend(c.escape_default());
            }
            rest = &rest[c.len_utf8()..];
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    if coloured {
        // Before the line's end, so that not even the rest of that line is coloured.
        let end = out.trim_end_matches(['\r', '\n']).len();
        out.insert_str(end, "\x1b[0m");
    }
    out.into_bytes()
}

/// Returns the colour sequence at the beginning of a text; empty if there is none.
fn colour(text: &str) -> &str {
    let Some(parameters) = text.strip_prefix("\x1b[") else { return "" };
    let length = parameters.bytes().take_while(|b| b.is_ascii_digit() || matches!(b, b';' | b':'));
    let length = length.count();
    if length <= MAX_COLOUR
        && !hides(&parameters[..length])
        && parameters[length..].starts_with('m')
    {
        &text[..2 + length + 1]
    } else {
        ""
    }
}

/// Whether the parameters of a colour sequence have an 8, which hides the text, other than as the number of a colour.
fn hides(parameters: &str) -> bool {
    let mut parameters = parameters.split(';').map(|one| one.trim_start_matches('0'));
    while let Some(one) = parameters.next() {
        match one {
            "38" | "48" | "58" => {
                let numbers = match parameters.next() {
                    Some("5") => 1,
                    Some("2") => 3,
                    _ => 0,
                };
                for _ in 0..numbers {
                    parameters.next();
                }
            }
            _ if one.split(':').next() == Some("8") => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_text_and_colours_and_nothing_else() {
        let reset = "\x1b[0m";
        for (output, shown) in [
            (&b"plain\ttext\n"[..], "plain\ttext\n".to_owned()),
            ("ä€𝄞\n".as_bytes(), "ä€𝄞\n".to_owned()),
            (b"dos\r\n", "dos\r\n".to_owned()),
            (b"over\rwritten\n", "over\\rwritten\n".to_owned()),
            (b"\x1b[31mred\x1b[0m\n", format!("\x1b[31mred\x1b[0m{reset}\n")),
            (b"\x1b[1;38;5;200mx\n", format!("\x1b[1;38;5;200mx{reset}\n")),
            (b"\x1b[38;5;8;48;2;8;8;8mx", format!("\x1b[38;5;8;48;2;8;8;8mx{reset}")),
            (b"\x1b[38:2::1:2:3mx", format!("\x1b[38:2::1:2:3mx{reset}")),
            (b"\x1b[2J\x1b[H", "\\u{1b}[2J\\u{1b}[H".to_owned()),
            (b"\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}".to_owned()),
            (b"\x1b]52;c;ZXZpbA==\x1b\\", "\\u{1b}]52;c;ZXZpbA==\\u{1b}\\".to_owned()),
            (b"\x1b[6n\x1bP+q\x1bc", "\\u{1b}[6n\\u{1b}P+q\\u{1b}c".to_owned()),
            (b"\x1b[>4;1m\x1b[?1m", "\\u{1b}[>4;1m\\u{1b}[?1m".to_owned()),
            (b"\x1b[31", "\\u{1b}[31".to_owned()),
            (b"\x1b[8mhidden\x1b[1;08m", "\\u{1b}[8mhidden\\u{1b}[1;08m".to_owned()),
            ("a\u{202e}b\u{200b}c\u{feff}".as_bytes(), "a\\u{202e}b\\u{200b}c\\u{feff}".to_owned()),
            (b"a\x08b\x7f\x00", "a\\u{8}b\\u{7f}\\u{0}".to_owned()),
            ("\u{9b}2J\u{85}".as_bytes(), "\\u{9b}2J\\u{85}".to_owned()),
            (b"\x9b2J\xff", "\\x9b2J\\xff".to_owned()),
        ] {
            let found = String::from_utf8(for_terminal(output)).unwrap();
            assert_eq!(found, shown, "{:?}", String::from_utf8_lossy(output));
        }
        let long = format!("\x1b[{}m", "1;".repeat(50));
        assert!(!for_terminal(long.as_bytes()).contains(&0x1b));
    }
}
