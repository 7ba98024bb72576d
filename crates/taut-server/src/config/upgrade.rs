//! `[apps.upgrade]`: how an app's clients show who they are before they are let in.

use std::path::Path;

use super::field::Field;
use super::value::{Diagnostics, Entry, Located};
use crate::app::{Callback, Published, Secret, TokenAuth, TokenKeys, UpgradeAuth};

/// What the table `[apps.upgrade]` may hold: exactly one of the first four, and what goes with it.
pub const UPGRADE_FIELDS: &[Field] = &[
    field("secret", "TEXT", "Tokens are signed by HS256 with this secret, of 32 bytes or more"),
    field("public-key", "FILE", "Tokens are signed by RS256, ES256 or EdDSA; the public half of the key, in PEM"),
    field("jwks", "URL", "The same, with the keys that the issuer publishes there (RFC 7517)"),
    field("callback", "URL", "No tokens: the application is asked for each connection, by a signed POST"),
    field("issuer", "TEXT", "Who must have issued a token (iss); with none, anybody"),
    field("audience", "TEXT", "For whom a token must be (aud); with none, anybody"),
    field(
        "query",
        "TEXT",
        "The parameter of the address that holds a token: token, if none is named; empty: none does",
    ),
    field("cookie", "TEXT", "The cookie that holds a token; with none, no cookie does"),
    field("subprotocol", "true|false", "Whether browsers may send a token as a subprotocol, after taut.v1; they may"),
];

const fn field(name: &'static str, value: &'static str, help: &'static str) -> Field {
    Field { name, value, default: "", help }
}

/// What vouches for a client.
enum Voucher {
    Keys(TokenKeys),
    Callback(Callback),
}

/// Reads the table; nothing, when it cannot be used, which has been complained about.
pub(super) fn read(table: &Located, complaints: &mut Diagnostics<'_>) -> Option<UpgradeAuth> {
    let Ok(entries) = table.table() else {
        complaints.complain(table.at, "upgrade is a table: write [apps.upgrade] on a line of its own");
        return None;
    };
    let mut vouchers = Vec::new();
    let mut snapshot = Vec::new();
    for entry in entries {
        match entry.name.as_str() {
            "secret" | "public-key" | "jwks" | "callback" => vouchers.push(entry),
            "issuer" | "audience" | "query" | "cookie" | "subprotocol" => snapshot.push(entry),
            _ => complaints.unknown(entry, "setting of an upgrade", UPGRADE_FIELDS.iter().map(|field| field.name)),
        }
    }
    let &[voucher] = vouchers.as_slice() else {
        let found = if vouchers.is_empty() { "none is" } else { "several are" };
        complaints.complain(
            table.at,
            format!("what vouches for clients is one of secret, public-key, jwks and callback; here {found}"),
        );
        return None;
    };
    let auth = match vouch(voucher) {
        Ok(Voucher::Callback(callback)) => {
            for entry in snapshot {
                complaints.complain(entry.at, format!("{} is about tokens, and a callback takes none", entry.name));
            }
            UpgradeAuth::Callback(callback)
        }
        Ok(Voucher::Keys(keys)) => {
            let mut auth = TokenAuth::new(keys);
            for entry in snapshot {
                if let Err(reason) = term(&mut auth, entry) {
                    complaints.complain(entry.value.at, format!("{}: {reason}", entry.name));
                }
            }
            UpgradeAuth::Token(auth)
        }
        Err(reason) => {
            complaints.complain(voucher.value.at, format!("{}: {reason}", voucher.name));
            return None;
        }
    };
    if let Err(invalid) = auth.check() {
        complaints.complain(voucher.value.at, format!("{}: {invalid}", voucher.name));
        return None;
    }
    Some(auth)
}

fn vouch(entry: &Entry) -> Result<Voucher, String> {
    let text = entry.value.text()?;
    Ok(match entry.name.as_str() {
        "secret" => Voucher::Keys(TokenKeys::Secret(Secret::from(text))),
        "public-key" => Voucher::Keys(TokenKeys::read(Path::new(&text)).map_err(|error| error.to_string())?),
        "jwks" => Voucher::Keys(TokenKeys::Published(Published::new(text))),
        _ => Voucher::Callback(Callback::new(text)),
    })
}

fn term(auth: &mut TokenAuth, entry: &Entry) -> Result<(), String> {
    let named = || entry.value.text().map(|text| Some(text).filter(|text| !text.is_empty()));
    match entry.name.as_str() {
        "issuer" => auth.issuer = named()?,
        "audience" => auth.audience = named()?,
        "query" => auth.query = named()?,
        "cookie" => auth.cookie = named()?,
        _ => auth.subprotocol = entry.value.switch()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn app(upgrade: &str) -> Result<Option<UpgradeAuth>, String> {
        let text = format!("[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n[apps.upgrade]\n{upgrade}");
        let path = std::env::temp_dir().join(format!("taut-upgrade-{}-{}.toml", std::process::id(), text.len()));
        std::fs::write(&path, text).expect("written");
        let file = ("TAUT_CONFIG".to_owned(), path.display().to_string());
        let loaded = Sources::new([], [file]).load();
        std::fs::remove_file(path).expect("removed");
        loaded.map(|loaded| loaded.config.apps[0].upgrade.clone()).map_err(|error| error.to_string())
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_secret_keys_or_the_application_vouch_for_clients() {
        let text = format!("secret = \"{SECRET}\"\nissuer = \"me\"\nquery = \"\"\ncookie = \"t\"\nsubprotocol = false");
        let mut expected = TokenAuth::new(TokenKeys::Secret(SECRET.into()));
        (expected.issuer, expected.query, expected.cookie) = (Some("me".to_owned()), None, Some("t".to_owned()));
        expected.subprotocol = false;
        assert_eq!(app(&text), Ok(Some(UpgradeAuth::Token(expected))));
        let jwks = "https://login.example/jwks.json";
        let expected = UpgradeAuth::Token(TokenAuth::new(TokenKeys::Published(Published::new(jwks))));
        assert_eq!(app(&format!("jwks = \"{jwks}\"")), Ok(Some(expected)));
        let expected = UpgradeAuth::Callback(Callback::new("https://app.example/may"));
        assert_eq!(app("callback = \"https://app.example/may\""), Ok(Some(expected)));
    }

    #[test]
    fn what_cannot_vouch_is_explained_and_no_secret_repeated() {
        for (text, reason) in [
            ("issuer = \"me\"", "one of secret, public-key, jwks and callback; here none is"),
            ("secret = \"hunter2\"\njwks = \"https://a.example/\"", "here several are"),
            ("secret = \"hunter2\"", "secret: the secret for tokens is too short"),
            ("public-key = \"/nowhere\"", "public-key: the file with the public key cannot be read"),
            ("jwks = \"ftp://a.example/\"", "jwks: the address must begin with http:// or https://"),
            ("callback = \"https://a.example/\"\nissuer = \"me\"", "issuer is about tokens"),
            ("sekret = \"hunter2\"", "did you mean secret?"),
        ] {
            let refused = app(text).expect_err(text);
            assert!(refused.contains(reason) && !refused.contains("hunter2"), "{text}: {refused}");
        }
    }
}
