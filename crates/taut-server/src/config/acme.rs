//! What is written about the certificate that the server obtains by itself, read.

use http::uri::Scheme;
use instant_acme::LetsEncrypt;

use super::{Config, Diagnostic};
use crate::acme::ExternalAccount;
use crate::address;
use crate::app::Secret;

/// Adds names, with commas between them.
pub(crate) fn add_names(names: &mut Vec<String>, text: &str) -> Result<(), String> {
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let name = domain_name(name)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > MOST_NAMES {
        return Err(format!("a certificate is for at most {MOST_NAMES} names"));
    }
    Ok(())
}

/// Reads a name of DNS (RFC 1035 §2.3.1), as it stands in a certificate: in lower case, without the dot of the root.
fn domain_name(text: &str) -> Result<String, String> {
    if text.starts_with("*.") {
        return Err(format!(
            "{text:?} is a wildcard, which authorities issue by DNS-01 only: name each host, or obtain the certificate \
             by another program and set tls-certificate"
        ));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_number = name.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if name.len() > 253 || is_number || !name.split('.').all(is_label) {
        return Err(format!(
            "{text:?} is not a domain name: write it as realtime.example.com, without scheme, port and path; other \
             letters than those of ASCII as xn--…"
        ));
    }
    Ok(name)
}

/// Reads the URL of a directory, or the word for one.
pub(crate) fn directory(text: &str) -> Result<String, String> {
    match text.trim() {
        "production" => Ok(PRODUCTION.to_owned()),
        "staging" => Ok(LetsEncrypt::Staging.url().to_owned()),
        url => match address::parse(url) {
            // RFC 8555 §6.1.
            Ok(uri) if uri.scheme() == Some(&Scheme::HTTPS) => Ok(url.to_owned()),
            _ => Err(format!(
                "{:?} is not an ACME directory: write production, staging, or the URL that the authority names, which \
                 begins with https://",
                address::shown(url)
            )),
        },
    }
}

/// Reads a mail address; nothing where the text is empty.
pub(crate) fn contact(text: &str) -> Result<Option<String>, String> {
    let address = text.trim();
    let address = address.strip_prefix("mailto:").unwrap_or(address);
    if address.is_empty() {
        return Ok(None);
    }
    // RFC 8555 §7.3: one address, and no header fields.
    let is_mail = address.split_once('@').is_some_and(|(user, host)| !user.is_empty() && domain_name(host).is_ok());
    if !is_mail || !address.bytes().all(|byte| byte.is_ascii_graphic() && !b",?\"<>".contains(&byte)) {
        return Err(format!("{text:?} is not one mail address, such as admin@example.com"));
    }
    Ok(Some(address.to_owned()))
}

/// The error does not repeat the key.
pub(crate) fn external_key(text: &str) -> Result<Secret, String> {
    let key = Secret::from(text.trim());
    ExternalAccount::new("", &key).map(|_| key)
}

/// What is asked of an authority, in the form that the protocol has for it.
pub(crate) struct Terms {
    pub(crate) names: Vec<String>,
    pub(crate) directory: String,
    pub(crate) contact: Option<String>,
}

/// Reads the settings again: a program that embeds the server may have set anything.
///
/// # Errors
/// The first setting that is wrong.
pub(crate) fn terms(config: &Config) -> Result<Terms, Diagnostic> {
    let wrong = |setting: &'static str| move |reason: String| Diagnostic::new(setting, reason);
    let mut names = Vec::new();
    config.acme.iter().try_for_each(|name| add_names(&mut names, name)).map_err(wrong("acme"))?;
    let directory = directory(&config.acme_directory).map_err(wrong("acme-directory"))?;
    let contact = contact(config.acme_contact.as_deref().unwrap_or_default()).map_err(wrong("acme-contact"))?;
    Ok(Terms { names, directory, contact })
}

/// What no setting shows by itself.
pub(crate) fn check_together(config: &Config) -> Vec<Diagnostic> {
    let mut mistakes = Vec::new();
    if !config.acme.is_empty() {
        mistakes.extend(terms(config).err());
    }
    let mut complain = |reason: &str| mistakes.push(Diagnostic::new("", reason));
    if !config.acme.is_empty() {
        if config.tls_certificate.is_some() || config.tls_key.is_some() {
            complain("acme and tls-certificate are both set: the server shows one certificate; leave one of them out");
        }
        if config.data_directory.is_none() {
            complain(
                "acme is set and data-directory is not: the certificate and its key must be kept somewhere; name a \
                 folder there",
            );
        }
    }
    if config.acme_eab_kid.is_some() != config.acme_eab_hmac.is_some() {
        complain("acme-eab-kid and acme-eab-hmac belong together: set both, or neither");
    }
    mistakes
}

/// Let's Encrypt.
pub(super) const PRODUCTION: &str = LetsEncrypt::Production.url();

/// What Let's Encrypt takes.
const MOST_NAMES: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        texts.iter().try_for_each(|text| add_names(&mut names, text)).map(|()| names)
    }

    #[test]
    fn names_are_read_as_they_stand_in_a_certificate_each_once() {
        let read = names(&["Realtime.Example.com., b.example", "b.example", "xn--bcher-kva.example", "localhost"]);
        assert_eq!(read.expect("names"), ["realtime.example.com", "b.example", "xn--bcher-kva.example", "localhost"]);
        assert_eq!(names(&["", " , "]).expect("none"), [""; 0]);
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_to_write() {
        for bad in [
            "https://a.example",
            "a.example:443",
            "a.example/",
            "a..example",
            ".example",
            "-a.example",
            "a-.example",
            "127.0.0.1",
            "::1",
            "bücher.example",
            "a_b.example",
            "a b.example",
            "a.example..",
        ] {
            let error = names(&[bad]).expect_err(bad);
            assert!(error.contains("is not a domain name"), "{error}");
        }
        assert!(names(&[&format!("{}.example", "a".repeat(64))]).is_err());
        // RFC 1035 §2.3.4: 255 bytes with the lengths of the labels and the root, which is 253 characters.
        let longest = [&*"a".repeat(63), &"b".repeat(63), &"c".repeat(63), &"d".repeat(61)].join(".");
        assert!(names(&[&longest]).is_ok() && names(&[&format!("{longest}d")]).is_err());
        assert!(names(&["*.example.com"]).expect_err("a wildcard").contains("DNS-01"));
        let many: Vec<String> = (0..101).map(|number| format!("{number}.example")).collect();
        assert!(names(&[&many[..100].join(",")]).is_ok());
        assert!(names(&[&many.join(",")]).expect_err("too many").contains("at most 100"));
    }

    // RFC 8555 §6.1.
    #[test]
    fn a_directory_is_a_word_or_an_address_of_https() {
        assert_eq!(directory("production").expect("a word"), "https://acme-v02.api.letsencrypt.org/directory");
        assert_eq!(directory("staging").expect("a word"), "https://acme-staging-v02.api.letsencrypt.org/directory");
        assert_eq!(
            directory(" https://ca.internal:9000/acme/acme/directory ").expect("a URL"),
            "https://ca.internal:9000/acme/acme/directory"
        );
        for bad in ["http://ca.example/dir", "ca.example", "", "https://me:hunter2@ca.example/", "stagging"] {
            let error = directory(bad).expect_err(bad);
            assert!(error.contains("begins with https://") && !error.contains("hunter2"), "{error}");
        }
    }

    // RFC 8555 §7.3.
    #[test]
    fn a_contact_is_one_mail_address() {
        assert_eq!(contact("admin@example.com"), Ok(Some("admin@example.com".to_owned())));
        assert_eq!(contact("mailto:admin@example.com"), Ok(Some("admin@example.com".to_owned())));
        assert_eq!(contact(" "), Ok(None));
        for bad in [
            "admin",
            "@example.com",
            "a@b@c.example",
            "a@x.example,b@x.example",
            "a@x.example?subject=x",
            "a b@x.example",
        ] {
            assert!(contact(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_that_is_none_is_not_repeated() {
        assert!(external_key("zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W").is_ok());
        assert!(external_key("c2VjcmV0_-8=").is_ok());
        for bad in ["", "hunter2!", "a"] {
            let error = external_key(bad).expect_err(bad);
            assert!(bad.len() < 2 || !error.contains(bad), "{error}");
        }
    }

    #[test]
    fn what_cannot_go_together_is_told() {
        let told = |change: fn(&mut Config)| {
            let mut config =
                Config { acme: vec!["a.example".to_owned()], data_directory: Some("data".into()), ..Config::default() };
            change(&mut config);
            let mistakes = check_together(&config);
            mistakes.iter().map(|mistake| mistake.reason.clone()).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(told(|_| {}), "");
        assert!(told(|config| config.data_directory = None).contains("data-directory is not"));
        assert!(told(|config| config.tls_certificate = Some("x".into())).contains("leave one of them out"));
        assert!(told(|config| config.tls_key = Some("x".into())).contains("leave one of them out"));
        assert!(told(|config| config.acme_eab_kid = Some("x".to_owned())).contains("belong together"));
        assert!(told(|config| config.acme_eab_hmac = Some("x".into())).contains("belong together"));
        assert_eq!(told(|config| (config.acme, config.data_directory) = (Vec::new(), None)), "");
    }
}
