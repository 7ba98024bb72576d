//! One order, from the names to the certificate (RFC 8555 §7.4), by TLS-ALPN-01 (RFC 8737).

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, CertificateIdentifier, ChallengeHandle, ChallengeType, Error,
    Identifier, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivatePkcs8KeyDer;
use taut_shard::tls::Resolver;

use super::authority::with_fresh_nonces;
use super::failure::Failure;

/// Obtains a certificate for these names, in place of an earlier one if the authority is to be told of that: the chain
/// and its key, in PEM.
///
/// # Cancel safety
/// The order stays with the authority, which forgets it in time. No challenge is answered any longer.
pub(super) async fn obtain(
    account: &Account,
    resolver: &Resolver,
    names: &[String],
    replaces: Option<CertificateIdentifier<'static>>,
) -> Result<String, Failure> {
    let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
    let wanted = NewOrder::new(&identifiers);
    let wanted = match replaces {
        Some(certificate) => wanted.replaces(certificate),
        None => wanted,
    };
    let mut order = with_fresh_nonces!(account.new_order(&wanted))?;
    with_fresh_nonces!(read_authorizations(&mut order))?;
    let answers = prepare_answers(&mut order).await?;
    // Before the authority is told, which asks at once.
    let _challenges = Challenges::answered(resolver, answers);
    begin_challenges(&mut order).await?;
    check_names(&mut order).await?;
    let key = with_fresh_nonces!(order.finalize())?;
    let chain = with_fresh_nonces!(order.poll_certificate(&POLLS))?;
    Ok(chain + "\n" + &key)
}

/// Asks for what the authority wants to know of each name. What has been answered is not asked for again.
async fn read_authorizations(order: &mut Order) -> Result<(), Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        authorization?;
    }
    Ok(())
}

/// The certificate for each name by which its challenge is answered.
type Answers = Vec<(String, Arc<CertifiedKey>)>;

/// Makes the answers to the challenges of an order, of all of them before the first is asked for: an order that cannot
/// be completed bothers nobody. Names that the authority has asked about lately have no challenge.
async fn prepare_answers(order: &mut Order) -> Result<Answers, Failure> {
    let mut answers = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Pending {
            let name = authorization.identifier().to_string();
            let challenge = challenge_of(&name, &mut authorization)?;
            let answer = answer_for(&name, challenge.key_authorization().digest().as_ref());
            let answer = answer.map_err(|reason| Failure::new(format!("{name}: {reason}"), ""))?;
            answers.push((name, answer));
        }
    }
    Ok(answers)
}

/// Tells the authority that the challenges can be asked for.
async fn begin_challenges(order: &mut Order) -> Result<(), Failure> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Pending {
            let name = authorization.identifier().to_string();
            let mut challenge = challenge_of(&name, &mut authorization)?;
            match with_fresh_nonces!(challenge.set_ready()) {
                Err(Error::Api(problem)) => return Err(Failure::of_name(&name, &problem)),
                begun => begun?,
            }
        }
    }
    Ok(())
}

fn challenge_of<'a>(
    name: &str,
    authorization: &'a mut AuthorizationHandle<'a>,
) -> Result<ChallengeHandle<'a>, Failure> {
    authorization.challenge(ChallengeType::TlsAlpn01).ok_or_else(|| {
        let reason = format!("{name}: the authority does not offer TLS-ALPN-01");
        Failure::new(
            reason,
            "Choose another authority, or obtain the certificate by another program and set tls-certificate",
        )
    })
}

/// The challenges that are answered while an order is under way.
struct Challenges<'r> {
    resolver: &'r Resolver,
}

impl<'r> Challenges<'r> {
    fn answered(resolver: &'r Resolver, answers: Answers) -> Self {
        resolver.set_challenges(answers);
        Self { resolver }
    }
}

impl Drop for Challenges<'_> {
    fn drop(&mut self) {
        self.resolver.set_challenges(Vec::new());
    }
}

/// The certificate by which a challenge is answered (RFC 8737 §3).
fn answer_for(name: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, String> {
    let make = || {
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
        let key = KeyPair::generate()?;
        params.self_signed(&key).map(|certificate| (certificate, key))
    };
    let (certificate, key) = make().map_err(|error: rcgen::Error| error.to_string())?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    // They belong together. To check that, rustls would have to know the critical extension.
    let key = any_ecdsa_type(&key.into()).map_err(|error| error.to_string())?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.into()], key)))
}

/// Waits until the authority has made sure that each name leads here.
async fn check_names(order: &mut Order) -> Result<(), Failure> {
    if order.state().status == OrderStatus::Ready {
        return Ok(());
    }
    match with_fresh_nonces!(order.poll_ready(&POLLS)) {
        Ok(OrderStatus::Invalid) => Err(refused_name(order, None).await),
        Err(Error::Api(problem)) => Err(refused_name(order, Some(&problem)).await),
        other => other.map(drop).map_err(Failure::from),
    }
}

/// What the authority found where it asked for a name: an order only says that one of them was refused.
async fn refused_name(order: &mut Order, problem: Option<&Problem>) -> Failure {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let name = authorization.identifier().to_string();
        if with_fresh_nonces!(authorization.refresh()).is_err() {
            break;
        }
        if let Some(error) = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return Failure::of_name(&name, error);
        }
    }
    problem.map_or_else(|| Failure::new("the order was refused, without a reason", ""), Failure::of_order)
}

/// How long the authority may take to look at the names, and as long again to issue. An order whose pause
/// (`Retry-After`) reaches beyond that is given up, and the next one waits for it.
const POLLS: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(280));

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;
    use crate::certificate::Certificate;

    // RFC 8737 §3: one name, and a critical extension with the digest as an octet string.
    #[test]
    fn a_challenge_is_answered_by_a_certificate_for_its_name_with_the_digest() {
        let digest = [7; 32];
        let answer = answer_for("a.example", &digest).expect("a certificate");
        let der: &CertificateDer<'_> = &answer.cert[0];
        assert_eq!(Certificate::read(der).expect("a certificate").names, ["a.example"]);
        let (_, certificate) = X509Certificate::from_der(der).expect("a certificate");
        let extension = certificate.extensions().iter().find(|one| one.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
        let extension = extension.expect("id-pe-acmeIdentifier");
        assert!(extension.critical);
        assert_eq!(extension.value, [[4, 32].as_slice(), &digest].concat());
    }

    #[test]
    fn challenges_are_no_longer_answered_once_an_order_is_over() {
        let resolver = Resolver::new();
        let answer = answer_for("a.example", &[0; 32]).expect("a certificate");
        let weak = Arc::downgrade(&answer);
        drop(Challenges::answered(&resolver, vec![("a.example".to_owned(), answer)]));
        assert!(weak.upgrade().is_none());
    }
}
