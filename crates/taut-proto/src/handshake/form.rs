//! Values in queries and in HTML forms, which are written the same way.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The first value of a field in a query, or in content of the type `application/x-www-form-urlencoded`.
///
/// It is decoded as the URL Standard says (§5.1): `+` is a space, `%2B` a plus sign, and a `%` without two digits behind
/// it stands for itself. `None` when there is no such field, or when its value does not decode to UTF-8. The standard
/// would replace what is not UTF-8; here no text arrives that nobody has sent.
///
/// ```
/// use taut_proto::handshake::form_value;
///
/// assert_eq!(form_value("a=1&name=Ada+L%C3%B6v", "name").as_deref(), Some("Ada Löv"));
/// assert_eq!(form_value("share=100%", "share").as_deref(), Some("100%"));
/// assert_eq!(form_value("name=%ff", "name"), None);
/// ```
pub fn form_value<'a>(form: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let mut pairs = form.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.find(|(key, _)| decoded(key).is_some_and(|key| key == name))?;
    decoded(value)
}

fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('+') {
        return percent_decode_str(text).decode_utf8().ok();
    }
    // A plus sign that is meant is still `%2B` at this point.
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()))
}
