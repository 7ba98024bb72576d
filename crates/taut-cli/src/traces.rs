//! Traces for OpenTelemetry, to where its standard variables say.
//!
//! They are no part of the log: neither its level nor its format changes them.

#[cfg(feature = "otel")]
mod otlp;

#[cfg(feature = "otel")]
use otlp::Provider;

/// Begins to send traces if the environment says where to, and tells the log whether and where they go. A mistake in the environment is told as well,
/// and the server goes on without traces.
#[cfg(feature = "otel")]
pub(crate) fn start(environment: impl Fn(&str) -> Option<String>) -> Option<Provider> {
    let refused = |reason: String| tracing::warn!("no traces are sent: {reason}");
    match Wanted::by(&environment) {
        Ok(Wanted { collector: Some(collector), remark }) => {
            if let Some(remark) = remark {
                tracing::warn!("{remark}");
            }
            Provider::start(&collector, &environment).map_err(refused).ok()
        }
        Ok(Wanted { collector: None, .. }) => {
            tracing::info!("no traces are sent: {ENDPOINT} names no collector, or they are switched off");
            None
        }
        Err(reason) => {
            refused(reason);
            None
        }
    }
}

/// Says so if traces are asked for, since this program cannot send them.
#[cfg(not(feature = "otel"))]
pub(crate) fn start(environment: impl Fn(&str) -> Option<String>) -> Nothing {
    if let Some(variable) = asked_by(&environment) {
        tracing::warn!(
            "no traces are sent although {variable} is set: this program was built without them; build it with --features otel, or unset the variable"
        );
    }
    Nothing
}

/// What is to be sent where nothing can be.
#[cfg(not(feature = "otel"))]
pub(crate) struct Nothing;

/// The variable that asks for traces.
#[cfg(any(test, not(feature = "otel")))]
fn asked_by(environment: &impl Fn(&str) -> Option<String>) -> Option<&'static str> {
    let is_set = |name: &&str| environment(name).is_some_and(|value| !value.trim().is_empty());
    if is_off(environment) { None } else { [TRACES_ENDPOINT, ENDPOINT, EXPORTER].into_iter().find(is_set) }
}

/// What the environment asks for.
#[cfg(feature = "otel")]
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    /// Where traces go; `None`: they are not asked for.
    collector: Option<Collector>,
    /// What is asked for, but not done.
    remark: Option<String>,
}

/// Where traces go.
#[cfg(feature = "otel")]
#[derive(Debug, PartialEq, Eq)]
struct Collector {
    url: String,
    /// For each request.
    within: std::time::Duration,
}

#[cfg(feature = "otel")]
impl Wanted {
    fn by(environment: &impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let set = |name: &str| environment(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        if is_off(environment) {
            return Ok(Self { collector: None, remark: None });
        }
        if let Some(exporter) = set(EXPORTER).filter(|exporter| exporter != "otlp") {
            return Err(format!("{EXPORTER} is {exporter:?}; Taut supports otlp and none"));
        }
        // The specification would send to this machine unasked; a server does not.
        let (variable, url) = match (set(TRACES_ENDPOINT), set(ENDPOINT)) {
            (Some(url), _) => (TRACES_ENDPOINT, url),
            (None, Some(base)) => (ENDPOINT, format!("{}/v1/traces", base.trim_end_matches('/'))),
            (None, None) => return Ok(Self { collector: None, remark: None }),
        };
        // The address may hold a secret, and is not repeated.
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        match host.and_then(|rest| rest.split(['/', '?']).next()) {
            None | Some("") => return Err(format!("{variable} is not an address like http://127.0.0.1:4318")),
            Some(host) if host.contains('@') => {
                return Err(format!(
                    "{variable} contains a user name or password: put it into OTEL_EXPORTER_OTLP_HEADERS"
                ));
            }
            Some(_) => {}
        }
        let within = match set(TRACES_TIMEOUT).or_else(|| set(TIMEOUT)) {
            None => LONGEST_REQUEST,
            Some(value) => value
                .parse()
                .map(std::time::Duration::from_millis)
                .map_err(|_| format!("{TIMEOUT} is not a number of milliseconds"))?,
        };
        let protocol = set(TRACES_PROTOCOL).or_else(|| set(PROTOCOL)).filter(|protocol| protocol != "http/protobuf");
        let remark = protocol.map(|protocol| {
            format!("{PROTOCOL} is {protocol:?}, which Taut does not speak: traces are sent by http/protobuf, which the collector must accept")
        });
        Ok(Self { collector: Some(Collector { url, within }), remark })
    }
}

/// Whether the environment wants no traces whatever else it says.
fn is_off(environment: &impl Fn(&str) -> Option<String>) -> bool {
    let is = |name: &str, word: &str| environment(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(word));
    is("OTEL_SDK_DISABLED", "true") || is(EXPORTER, "none")
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
#[cfg(feature = "otel")]
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
#[cfg(feature = "otel")]
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
#[cfg(feature = "otel")]
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
#[cfg(feature = "otel")]
const TRACES_TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT";

/// For a request, where nothing else is asked for: the specification's own.
#[cfg(feature = "otel")]
const LONGEST_REQUEST: std::time::Duration = std::time::Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        move |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn traces_are_asked_for_by_an_endpoint_or_an_exporter_that_is_not_none() {
        let endpoint = (ENDPOINT, "http://127.0.0.1:4318");
        assert_eq!(asked_by(&of(&[])), None);
        assert_eq!(asked_by(&of(&[(ENDPOINT, "")])), None);
        assert_eq!(asked_by(&of(&[endpoint])), Some(ENDPOINT));
        assert_eq!(asked_by(&of(&[(TRACES_ENDPOINT, "http://a/"), endpoint])), Some(TRACES_ENDPOINT));
        assert_eq!(asked_by(&of(&[(EXPORTER, "otlp")])), Some(EXPORTER));
        assert_eq!(asked_by(&of(&[endpoint, (EXPORTER, "none")])), None);
        assert_eq!(asked_by(&of(&[endpoint, ("OTEL_SDK_DISABLED", "True")])), None);
    }

    #[cfg(feature = "otel")]
    mod with_the_feature {
        use super::*;

        fn url(variables: &[(&str, &str)]) -> Option<String> {
            Wanted::by(&of(variables)).expect("good").collector.map(|collector| collector.url)
        }

        #[test]
        fn an_endpoint_for_all_is_a_base_and_one_for_traces_is_the_address() {
            assert_eq!(url(&[(ENDPOINT, "http://a:4318")]).as_deref(), Some("http://a:4318/v1/traces"));
            assert_eq!(url(&[(ENDPOINT, "https://a/b/")]).as_deref(), Some("https://a/b/v1/traces"));
            assert_eq!(url(&[(TRACES_ENDPOINT, "http://a/b"), (ENDPOINT, "http://c")]).as_deref(), Some("http://a/b"));
            assert_eq!(url(&[]), None);
            assert_eq!(url(&[(EXPORTER, "otlp")]), None, "nothing is sent to where nobody has said");
            assert_eq!(url(&[(ENDPOINT, "http://a"), (EXPORTER, "none")]), None);
        }

        #[test]
        fn a_mistake_is_told_without_what_may_be_secret() {
            for wrong in ["127.0.0.1:4318", "grpc://hunter2", "http://", "http:///hunter2", "http://name:hunter2@a/"] {
                let reason = Wanted::by(&of(&[(ENDPOINT, wrong)])).expect_err(wrong);
                assert!(reason.starts_with(ENDPOINT) && !reason.contains("hunter2"), "{reason}");
            }
            let endpoint = (ENDPOINT, "http://a");
            assert!(Wanted::by(&of(&[endpoint, (EXPORTER, "zipkin")])).is_err());
            assert!(Wanted::by(&of(&[endpoint, (TIMEOUT, "soon")])).is_err());
        }

        #[test]
        fn another_protocol_is_not_spoken_and_that_is_said() {
            let endpoint = (ENDPOINT, "http://a");
            let remark = |protocol| Wanted::by(&of(&[endpoint, (PROTOCOL, protocol)])).expect("good").remark;
            assert_eq!(remark("http/protobuf"), None);
            assert!(remark("grpc").is_some_and(|remark| remark.contains("\"grpc\"")));
        }

        #[test]
        fn the_time_for_a_request_is_in_milliseconds() {
            let within = |variables| {
                Wanted::by(&of(variables)).expect("good").collector.expect("a collector").within.as_millis()
            };
            assert_eq!(within(&[(ENDPOINT, "http://a")]), 10_000);
            assert_eq!(within(&[(ENDPOINT, "http://a"), (TIMEOUT, "1")]), 1);
            assert_eq!(within(&[(ENDPOINT, "http://a"), (TIMEOUT, "1"), (TRACES_TIMEOUT, "2")]), 2);
        }
    }
}
