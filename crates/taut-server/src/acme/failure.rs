//! Why an order has led to no certificate, in the authority's words, and what to do about it.

use std::error;
use std::fmt;
use std::time::{Instant, SystemTime};

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
    /// The authority would not have an answer before.
    pub(super) not_before: Option<SystemTime>,
}

impl Failure {
    pub(super) fn new(reason: impl AsRef<str>, advice: &'static str) -> Self {
        Self { reason: printable(reason.as_ref()), advice, is_unknown_account: false, not_before: None }
    }

    /// The authority has answered with a problem (RFC 8555 §6.7).
    pub(super) fn of_problem(problem: &Problem) -> Self {
        let is_unknown_account = short(problem.r#type.as_deref()) == "accountDoesNotExist";
        Self { is_unknown_account, ..Self::advised(problem, advice) }
    }

    /// The authority could not make sure that the names lead here.
    pub(super) fn of_order(problem: &Problem) -> Self {
        Self::advised(problem, name_advice)
    }

    /// The authority could not make sure that a name leads here.
    pub(super) fn of_name(name: &str, problem: &Problem) -> Self {
        let failure = Self::of_order(problem);
        Self { reason: format!("{name}: {}", failure.reason), ..failure }
    }

    fn advised(problem: &Problem, advice: fn(&str) -> &'static str) -> Self {
        // What is behind the first problem says more.
        let inner = problem.subproblems.iter().map(|inner| {
            let advice = if inner.identifier.is_some() { name_advice } else { advice };
            advice(short(inner.r#type.as_deref()))
        });
        let advice = inner.chain([advice(short(problem.r#type.as_deref()))]).find(|advice| !advice.is_empty());
        Self::new(words(problem), advice.unwrap_or_default())
    }
}

/// Why a request has no answer of the protocol, and what to do about it.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) reason: String,
    pub(super) advice: &'static str,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

impl error::Error for Unanswered {}

impl From<Unanswered> for Error {
    fn from(unanswered: Unanswered) -> Self {
        Self::Other(unanswered.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::of_problem(&problem),
            Error::Json(_) => Self::new("the answer is not ACME", WRONG_DIRECTORY),
            Error::Timeout(until) => {
                let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                let not_before = left.and_then(|left| SystemTime::now().checked_add(left));
                Self { not_before, ..Self::new("the authority did not decide in time", ANOTHER_ORDER) }
            }
            // Also what the library of cryptography says, although the authority was reached.
            Error::Other(reason) => {
                let advice = reason.downcast_ref::<Unanswered>().map(|unanswered| unanswered.advice);
                Self::new(reason.to_string(), advice.unwrap_or_default())
            }
            error => Self::new(error.to_string(), WRONG_DIRECTORY),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(
            error.to_string(),
            "Give the server's user the right to write to data-directory, and room on its disk: nothing is ordered \
             that could not be kept",
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
        ("", detail) => detail.unwrap_or("the authority gave no reason").to_owned(),
        (kind, Some(detail)) => format!("{detail} ({kind})"),
        (kind, None) => kind.to_owned(),
    }
}

fn short(kind: Option<&str>) -> &str {
    kind.map(|kind| kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind)).unwrap_or_default()
}

/// What to do about an error that is about a name.
fn name_advice(kind: &str) -> &'static str {
    match kind {
        "unauthorized" => ELSEWHERE,
        kind => advice(kind),
    }
}

/// What to do about an error of RFC 8555 §6.7; nothing where nobody knows.
fn advice(kind: &str) -> &'static str {
    match kind {
        "connection" => {
            "Let the authority reach this server: port 443 of each name must lead to it, through every firewall and on \
             IPv6 too if the name has an AAAA record"
        }
        "dns" => "Point each name at this server: its A and AAAA records must exist and lead here",
        // RFC 8555 §7.3.6: somebody has deactivated it.
        "unauthorized" => {
            "The authority refuses the ACME account: remove account.json in data-directory/acme to make another one"
        }
        "incorrectResponse" => ELSEWHERE,
        "tls" => "Port 443 of each name must lead to this server's TLS, and not to one that decrypts it in front",
        "caa" => "A CAA record of the domain forbids this authority: add it there",
        "rateLimited" => {
            "The authority has had too many orders for this name or account: wait, and try with acme-directory = \
             \"staging\" meanwhile"
        }
        "rejectedIdentifier" | "unsupportedIdentifier" => {
            "The authority issues no certificate for this name: correct acme, or choose another authority in \
             acme-directory"
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

/// What to do where a request has no answer.
pub(super) const UNREACHABLE: &str = "Make sure that this machine reaches acme-directory by HTTPS and trusts its \
                                      certificate (acme-ca-root, for an authority of your own)";

/// Where there is nothing to do.
pub(super) const ANOTHER_ORDER: &str = "Another order follows";

/// The name does not lead here.
const ELSEWHERE: &str = "Another server answers for this name, or none, or a proxy that decrypts TLS stands in front: \
                         point the name here, and pass port 443 on as TCP. Behind such a proxy the certificate is the \
                         proxy's";

pub(super) const WRONG_DIRECTORY: &str = "Set acme-directory to the URL of the authority's directory";

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
        assert_eq!(failure("{}").to_string(), "the authority gave no reason");
        assert_eq!(failure(r#"{"type": "about:blank"}"#).to_string(), "about:blank");
        assert_eq!(failure(r#"{"type": "about:blank"}"#).advice, "");
    }

    // RFC 8555 §6.7.
    #[test]
    fn an_error_comes_with_what_to_do_about_it() {
        for (kinds, words) in [
            (&["connection"][..], "port 443 of each name must lead to it"),
            (&["dns"], "A and AAAA records"),
            (&["incorrectResponse"], "Another server answers for this name"),
            (&["unauthorized"], "account.json"),
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

    // RFC 8555 §7.3.6: a deactivated account is refused with the same word as a challenge that fails (§8.1).
    #[test]
    fn what_to_do_about_unauthorized_depends_on_what_was_refused() {
        let json = r#"{"type": "urn:ietf:params:acme:error:unauthorized", "detail": "no"}"#;
        let problem: Problem = serde_json::from_str(json).expect("a problem");
        assert!(Failure::of_problem(&problem).advice.contains("account.json"));
        let told = Failure::of_name("a.example", &problem);
        assert_eq!(told.to_string(), "a.example: no (unauthorized)");
        assert!(told.advice.starts_with("Another server answers for this name"), "{}", told.advice);
        assert_eq!(Failure::of_order(&problem).advice, told.advice);
        let inner =
            format!(r#"{{"subproblems": [{{"identifier": {{"type": "dns", "value": "a.example"}}, {}]}}"#, &json[1..]);
        assert_eq!(failure(&inner).advice, told.advice);
    }

    #[test]
    fn only_a_request_without_an_answer_is_a_matter_of_the_network() {
        let unanswered = Unanswered { reason: "no connection".to_owned(), advice: UNREACHABLE };
        let told = Failure::from(Error::from(unanswered));
        assert_eq!((told.to_string().as_str(), told.advice), ("no connection", UNREACHABLE));
        assert_eq!(Failure::from(Error::Other("no key".into())).advice, "");
    }

    #[test]
    fn a_pause_that_the_authority_wants_is_kept_when_it_is_longer_than_an_order() {
        let within = std::time::Duration::from_secs(1000);
        let before = SystemTime::now();
        let not_before = Failure::from(Error::Timeout(Some(Instant::now() + within))).not_before.expect("a time");
        let pause = not_before.duration_since(before).expect("later").as_secs();
        assert!((998..=1001).contains(&pause), "{pause}");
        assert_eq!(Failure::from(Error::Timeout(None)).not_before, None);
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
