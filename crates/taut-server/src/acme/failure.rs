//! Why an order has led to no certificate, in the authority's words, and what to do about it.

use std::fmt;

use instant_acme::{Error, Identifier, Problem, Subproblem};

use super::store::StoreError;

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Failure {
    reason: String,
    /// What to do about it.
    pub(super) advice: &'static str,
    /// The authority does not know the account: another one is to be made.
    pub(super) is_unknown_account: bool,
}

impl Failure {
    pub(super) fn new(reason: impl AsRef<str>, advice: &'static str) -> Self {
        Self { reason: printable(reason.as_ref()), advice, is_unknown_account: false }
    }

    /// The authority has answered with a problem (RFC 8555 §6.7).
    pub(super) fn of_problem(problem: &Problem) -> Self {
        // What is behind the first problem says more.
        let kinds = problem.subproblems.iter().map(|inner| inner.r#type.as_deref()).chain([problem.r#type.as_deref()]);
        let kind = kinds.map(short).find(|kind| !advice(kind).is_empty()).unwrap_or_default();
        let is_unknown_account = short(problem.r#type.as_deref()) == "accountDoesNotExist";
        Self { is_unknown_account, ..Self::new(words(problem), advice(kind)) }
    }

    /// The authority could not make sure that a name leads here.
    pub(super) fn of_name(name: &str, problem: &Problem) -> Self {
        let Self { reason, advice, .. } = Self::of_problem(problem);
        Self { reason: format!("{name}: {reason}"), advice, is_unknown_account: false }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::of_problem(&problem),
            Error::Json(_) => Self::new("what it answered is not ACME", WRONG_DIRECTORY),
            Error::Timeout(_) => Self::new("it has not decided in time", "It is asked again"),
            Error::Other(reason) => Self::new(reason.to_string(), UNREACHABLE),
            error => Self::new(error.to_string(), WRONG_DIRECTORY),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(
            error.to_string(),
            "Give the server's user the right to write to data-directory, and room on its disk: nothing is ordered that could not be kept",
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

/// Whether only the number was refused that keeps a request from being sent twice (RFC 8555 §6.5).
pub(super) fn is_bad_nonce(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if short(problem.r#type.as_deref()) == "badNonce")
}

/// What the authority says, with what is behind it.
fn words(problem: &Problem) -> String {
    let said = said(problem.r#type.as_deref(), problem.detail.as_deref());
    let inner: Vec<String> = problem.subproblems.iter().map(inner_words).collect();
    if inner.is_empty() { said } else { format!("{said}: {}", inner.join("; ")) }
}

fn inner_words(problem: &Subproblem) -> String {
    let said = said(problem.r#type.as_deref(), problem.detail.as_deref());
    match &problem.identifier {
        Some(Identifier::Dns(name)) => format!("{name}: {said}"),
        _ => said,
    }
}

fn said(kind: Option<&str>, detail: Option<&str>) -> String {
    match (short(kind), detail) {
        ("", detail) => detail.unwrap_or("it gave no reason").to_owned(),
        (kind, Some(detail)) => format!("{detail} ({kind})"),
        (kind, None) => kind.to_owned(),
    }
}

fn short(kind: Option<&str>) -> &str {
    kind.map(|kind| kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind)).unwrap_or_default()
}

/// What to do about an error of RFC 8555 §6.7; nothing where nobody knows.
fn advice(kind: &str) -> &'static str {
    match kind {
        "connection" => {
            "Let the authority reach this server: port 443 of each name must lead to it, through every firewall and on IPv6 too if the name has an AAAA record"
        }
        "dns" => "Point each name at this server: its A and AAAA records must exist and lead here",
        "unauthorized" | "incorrectResponse" => {
            "Another server answers for this name, or none, or a proxy that decrypts TLS stands in front: point the name here, and pass port 443 on as TCP. Behind such a proxy the certificate is the proxy's"
        }
        "tls" => "Port 443 of each name must lead to this server's TLS, and not to one that decrypts it in front",
        "caa" => "A CAA record of the domain forbids this authority: add it there",
        "rateLimited" => {
            "The authority has had too many orders for this name or account: wait, and try with acme-directory = \"staging\" meanwhile"
        }
        "rejectedIdentifier" | "unsupportedIdentifier" => {
            "The authority issues no certificate for this name: correct acme, or choose another authority in acme-directory"
        }
        "externalAccountRequired" => {
            "Set acme-eab-kid and acme-eab-hmac to what the authority gave you with your account there"
        }
        "userActionRequired" => "The authority wants you to do something first: see its words",
        "invalidContact" | "unsupportedContact" => "Correct acme-contact, or leave it out",
        "serverInternal" | "badNonce" => "The authority has a fault: it is asked again",
        "badSignatureAlgorithm" | "badPublicKey" | "badCSR" | "malformed" => {
            "The authority does not understand the request: is acme-directory right?"
        }
        _ => "",
    }
}

/// A line that can be shown: what others send may be long, or several lines.
fn printable(text: &str) -> String {
    let line = text.chars().take(LONGEST_REASON).map(|c| if c.is_control() { ' ' } else { c });
    line.collect::<String>().trim().to_owned()
}

pub(super) const UNREACHABLE: &str = "Make sure that this machine reaches acme-directory by HTTPS and trusts its certificate (acme-ca-root, for an authority of your own)";

const WRONG_DIRECTORY: &str = "Set acme-directory to the URL of the authority's directory";

const LONGEST_REASON: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(json: &str) -> Failure {
        Failure::from(Error::Api(serde_json::from_str(json).expect("a problem")))
    }

    // RFC 8555 §6.7.
    #[test]
    fn a_problem_is_told_in_the_authoritys_words_with_what_to_do() {
        let told = failure(
            r#"{"type": "urn:ietf:params:acme:error:caa", "detail": "CAA record for a.example prevents issuance"}"#,
        );
        assert_eq!(told.to_string(), "CAA record for a.example prevents issuance (caa)");
        assert!(told.advice.contains("CAA record"), "{}", told.advice);
        assert!(!told.is_unknown_account);
        assert!(failure(r#"{"type": "urn:ietf:params:acme:error:accountDoesNotExist"}"#).is_unknown_account);
        assert_eq!(failure("{}").to_string(), "it gave no reason");
        assert_eq!(failure(r#"{"type": "about:blank"}"#).to_string(), "about:blank");
        assert_eq!(failure(r#"{"type": "about:blank"}"#).advice, "");
    }

    // RFC 8555 §6.7.
    #[test]
    fn an_error_comes_with_what_to_do_about_it() {
        for (kinds, words) in [
            (&["connection"][..], "port 443 of each name must lead to it"),
            (&["dns"], "A and AAAA records"),
            (&["unauthorized", "incorrectResponse"], "Another server answers for this name"),
            (&["tls"], "this server's TLS"),
            (&["caa"], "add it there"),
            (&["rateLimited"], "acme-directory = \"staging\""),
            (&["rejectedIdentifier", "unsupportedIdentifier"], "correct acme, or choose another authority"),
            (&["externalAccountRequired"], "acme-eab-kid and acme-eab-hmac"),
            (&["userActionRequired"], "see its words"),
            (&["invalidContact", "unsupportedContact"], "acme-contact"),
            (&["serverInternal", "badNonce"], "it is asked again"),
            (&["badSignatureAlgorithm", "badPublicKey", "badCSR", "malformed"], "is acme-directory right?"),
        ] {
            for kind in kinds {
                let told = failure(&format!(r#"{{"type": "urn:ietf:params:acme:error:{kind}"}}"#));
                assert!(told.advice.contains(words), "{kind}: {}", told.advice);
            }
        }
    }

    // RFC 8555 §6.7.1.
    #[test]
    fn what_is_behind_a_problem_is_told_too_and_decides_what_to_do() {
        let told = failure(
            r#"{"type": "urn:ietf:params:acme:error:compound", "detail": "Some names were refused", "subproblems": [
                {"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "policy", "identifier": {"type": "dns", "value": "a.example"}},
                {"detail": "more"}]}"#,
        );
        assert_eq!(
            told.to_string(),
            "Some names were refused (compound): a.example: policy (rejectedIdentifier); more"
        );
        assert!(told.advice.contains("issues no certificate for this name"), "{}", told.advice);
    }

    #[test]
    fn what_the_authority_says_stays_one_line_of_bounded_length() {
        let told = failure(&format!(r#"{{"detail": "one\ntwo\u001b[31m{}"}}"#, "x".repeat(10_000))).to_string();
        assert!(told.starts_with("one two [31mxx") && told.len() == LONGEST_REASON, "{told}");
    }

    // RFC 8555 §6.5.
    #[test]
    fn a_bad_nonce_is_known_as_such() {
        let error = |json: &str| Error::Api(serde_json::from_str(json).expect("a problem"));
        assert!(is_bad_nonce(&error(r#"{"type": "urn:ietf:params:acme:error:badNonce"}"#)));
        assert!(!is_bad_nonce(&error(r#"{"type": "urn:ietf:params:acme:error:malformed"}"#)));
        assert!(!is_bad_nonce(&Error::Str("badNonce")));
    }
}
